"""The browser of rollouts in a run's report."""
