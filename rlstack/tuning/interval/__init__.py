"""Choosing the sync interval s from short trial runs: `rlstack tune`."""
