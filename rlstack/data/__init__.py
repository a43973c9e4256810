"""Records, prompts and micro-batches."""
