"""The shape of a model, its weights and its FLOPs, without torch."""
