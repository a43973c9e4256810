"""Rewards to training signal, in plain Python."""
