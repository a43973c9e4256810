"""What the facts mean for a run. Pure: each check takes the facts and yields verdicts."""
