"""Runs side by side: what `rlstack compare` reads, draws and prints."""
