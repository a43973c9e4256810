"""Confidence intervals of means of few values: Student's t. Pure.

Trials of two sync intervals with the same seed share their prompts, so they are compared by the mean of
their differences, seed by seed (the paired t interval; Student 1908, Biometrika 6(1); as in Montgomery,
Design and Analysis of Experiments, section 2.5). It assumes that the differences are about normal, and
nothing about their size: every pair of intervals has its own deviation.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache


class Over(StrEnum):
    """What an interval's values are."""

    seeds = "seeds"  # one per trial: it speaks of the runs that other seeds would give
    steps = "steps"  # one per batch of prompts of a single trial: it speaks of that trial only


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A mean and the ends of its two-sided confidence interval, None where there is but one value."""

    mean: float
    low: float | None
    high: float | None
    num: int  # values
    over: Over = Over.seeds


def estimate(values: Sequence[float], *, confidence: float, over: Over = Over.seeds) -> Estimate:
    """The mean of at least one value; each end is a one-sided bound at (1 + confidence) / 2."""
    mean, num = statistics.fmean(values), len(values)
    if num < 2:
        return Estimate(mean=mean, low=None, high=None, num=num, over=over)
    half = t_quantile((1 + confidence) / 2, num - 1) * statistics.stdev(values) / math.sqrt(num)
    return Estimate(mean=mean, low=mean - half, high=mean + half, num=num, over=over)


def paired(ours: Mapping[int, float], theirs: Mapping[int, float], *, confidence: float) -> Estimate | None:
    """Ours minus theirs, by seed; None without a seed in common."""
    seeds = sorted(ours.keys() & theirs.keys())
    if not seeds:
        return None
    return estimate([ours[seed] - theirs[seed] for seed in seeds], confidence=confidence)


@cache
def t_quantile(probability: float, freedom: int) -> float:
    """The value that a t-distributed variable stays below with `probability`, of at least one half."""
    assert 0.5 <= probability < 1 and freedom >= 1
    low, high = 0.0, 1.0
    while t_probability(high, freedom) < probability:
        high *= 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if t_probability(middle, freedom) < probability else (low, middle)
    return high


def t_probability(t: float, freedom: int) -> float:
    """P(T <= t) for t >= 0: the finite sums of Abramowitz and Stegun, 26.7.3 and 26.7.4."""
    angle = math.atan2(t, math.sqrt(freedom))
    cosine_squared = freedom / (freedom + t * t)
    is_odd = freedom % 2
    term = math.sqrt(cosine_squared) if is_odd else 1.0
    total = 0.0
    for i in range(1 + is_odd, freedom, 2):  # terms of freedom // 2
        total += term
        term *= cosine_squared * i / (i + 1)
    total *= math.sin(angle)
    within = 2 / math.pi * (angle + total) if is_odd else total
    return 0.5 + within / 2
