"""Objectives as pure functions of logprobs."""
