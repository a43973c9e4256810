"""Checkpoints as folders of files: whole, verified, kept or deleted. Room policy writes what is in them."""
