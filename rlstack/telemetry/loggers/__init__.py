"""Metrics to TensorBoard, W&B and MLflow: each in a process of its own, which can be ended at any time."""
