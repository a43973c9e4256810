"""How fast the policy leaves the version that samples: a power law of the rollouts' age. Pure.

    drift(age) = scale * age ** exponent

age is the number of optimiser steps that the policy has taken since the rollouts' version; drift is the mean
over their tokens of |ln p_policy - ln p_generator| (`drift/logprob_abs_mean`). To first order that is twice
the total variation between the two at a token, in which the bound of a trust region is stated (Schulman et
al. 2015, arXiv:1502.05477, theorem 1). A KL divergence is of second order in the steps, this of first: the
exponent is 1 for steps that all go one way, 1/2 for a random walk.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

MIN_EXPONENT, MAX_EXPONENT = 0.5, 2.0  # a random walk; steps that grow, as in a warm-up
_ENDLESS = 1e100  # so many times the first step's drift is never reached, and its square is still a number
NUM_AGES = 3  # different ages from which on the exponent is fitted; it is 1 with fewer


class Point(NamedTuple):
    """One step's measurement."""

    age: int  # from 1
    drift: float  # nats per token


class DriftLaw(NamedTuple):
    scale: float  # nats per token after one step
    exponent: float

    def at(self, age: int) -> float:
        """The drift at `age`, in nats per token."""
        return self.scale * age**self.exponent if age > 0 else 0.0

    def age_of(self, drift: float) -> float:
        """The age at which `drift` is reached; infinite if nothing drifts."""
        ratio = drift / self.scale if self.scale > 0 else math.inf
        return ratio ** (1 / self.exponent) if ratio < _ENDLESS else math.inf


def above_floor(drift: float, floor: float) -> float:
    """What is left of `drift` without `floor`, the difference between two engines' arithmetic, in nats.

    The two are independent, so that their squares add.
    """
    return math.sqrt(max(drift**2 - floor**2, 0.0))


def fit(points: Sequence[Point]) -> DriftLaw | None:
    """The law that `points` follow, by least squares of their logarithms; None without a point.

    A drift of 0 says that the floor hides it. Where that is so of half the points, nothing drifts.
    """
    if not points:
        return None
    seen = [point for point in points if point.drift > 0]
    if 2 * len(seen) <= len(points):
        return DriftLaw(0.0, 1.0)
    ages = [math.log(point.age) for point in seen]
    drifts = [math.log(point.drift) for point in seen]
    slope = statistics.linear_regression(ages, drifts).slope if len(set(ages)) >= NUM_AGES else 1.0
    exponent = min(max(slope, MIN_EXPONENT), MAX_EXPONENT)
    return DriftLaw(math.exp(statistics.fmean(drifts) - exponent * statistics.fmean(ages)), exponent)
