"""What a run says about itself: metrics, samples, logs, the terminal and the summary."""
