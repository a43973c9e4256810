"""Objectives as pure functions of logprobs; importing and building a loss needs no torch, calling it does."""
