"""Trial results that are made up, with effects that a test knows."""

from __future__ import annotations

from itertools import accumulate
from random import Random

from rlstack.tuning.interval.halving import Plan
from rlstack.tuning.interval.intervals import Interval
from rlstack.tuning.interval.trials import PARTS, Trial, TrialResult

STEPS = 12


def plan(*intervals: Interval, seeds: int = 4, num_steps: int = STEPS, margin: float = 0.02) -> Plan:
    return Plan(
        intervals=intervals,
        seeds=tuple(range(seeds)),
        num_steps=num_steps,
        lag=0,
        margin=margin,
        confidence=0.9,
        accelerators=2,
    )


def result(
    interval: Interval,
    seed: int = 0,
    *,
    reward: float = 0.7,
    first: float = 0.2,
    step_s: float = 1.0,
    accuracy: float | None = None,
    rewards: tuple[float | None, ...] | None = None,
) -> TrialResult:
    """A trial whose reward is `first` up to its last steps, where it is `reward`."""
    rewards = rewards or (*(first,) * (STEPS - 2), reward, reward)
    return TrialResult(
        interval=interval,
        seed=seed,
        rewards=rewards,
        versions=tuple(
            0 if interval is None else step // interval * interval for step in range(len(rewards))
        ),
        ends_s=tuple(accumulate([step_s] * len(rewards))),
        part_s=dict.fromkeys(PARTS, 0.0) | {"train": step_s * len(rewards)},
        syncs=0,
        sync_bytes=0,
        tokens_generated=100,
        accuracy=accuracy,
        start_up_s=5.0,
    )


def noisy(
    trial: Trial, random: Random, *, reward: float, noise: float, step_s: float = 1.0, common: float = 0.0
) -> TrialResult:
    """One with normal noise on its last reward; `common` is the seed's own, the same for all intervals."""
    return result(trial.interval, trial.seed, reward=reward + common + random.gauss(0, noise), step_s=step_s)
