"""What the course of a run is drawn against."""

from __future__ import annotations

from enum import StrEnum


class Axis(StrEnum):
    """The number of a step, or a sum over the steps up to it."""

    step = "step"
    time = "time"  # seconds of the steps: without start-up, and without what comes after the last step
    tokens = "tokens"  # sampled
