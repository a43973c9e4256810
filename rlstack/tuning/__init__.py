"""Choosing before running: what a setup would cost, from measured or assumed parts, and which one is best."""
