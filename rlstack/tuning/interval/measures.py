"""What the trials of each interval come to: reward per step, per hour and per accelerator-hour. Pure.

- *Reward per step* is the mean reward of a trial's last steps (a sixth of them): what the same number of
  steps, prompts and rollouts leads to. Rollouts are up to s - 1 steps older than the policy, so the measure
  leans against a larger s, never for it.
- *Reward per hour* is the reward gained per hour of steps: reward per step less that of the untrained policy,
  over the time of all steps. It is defined for every trial and needs neither a crossing nor an extrapolation,
  so it holds on short runs. The untrained policy's reward is the mean over all rollouts of version 0 of the
  seed's trials: what is the same for all must not count as anybody's gain.
- Beside it: the time to a target (the reward online ends with, less the margin), and the mean reward in the
  time of the shortest trial (the area under the reward-time curve).
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rlstack.telemetry.curves import trailing_mean
from rlstack.tuning.interval.confidence import Estimate, Over, estimate, paired
from rlstack.tuning.interval.intervals import ONLINE, Interval, in_order
from rlstack.tuning.interval.trials import PARTS, TrialResult

LAST_SHARE = 6  # the last steps are one in this many of a trial's
HOUR_S = 3600.0

Results = Sequence[TrialResult]
BySeed = Mapping[int, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measures:
    """Of one interval: estimates over its seeds; differences are to online, paired by seed."""

    interval: Interval
    reward: Estimate  # per step: of the last steps
    reward_difference: Estimate | None  # None: no seed in common with online
    per_hour: Estimate  # reward gained per hour
    per_accelerator_hour: Estimate
    rates: BySeed  # the values behind `per_hour`
    target_s: Estimate | None  # time to the target, of the trials that reached it; None: none did
    reward_in_time: Estimate  # mean reward in the time of the shortest trial
    accuracy: Estimate | None  # held-out; None: not measured
    accuracy_difference: Estimate | None
    step_s: Estimate
    part_s: Mapping[str, float]  # of a step, by trials.PARTS
    sync_bytes_per_step: float

    @property
    def num_seeds(self) -> int:
        return len(self.rates)


def measure(results: Results, *, margin: float, confidence: float, accelerators: int) -> list[Measures]:
    """The measures of each interval that has results, from online to offline."""
    starts = _untrained(results)
    targets = {r.seed: last_reward(r) - margin for r in results if r.interval == ONLINE}
    horizon_s = min((result.wall_s for result in results), default=0.0)
    groups = {s: [r for r in results if r.interval == s] for s in in_order(r.interval for r in results)}
    online = groups.get(ONLINE, [])

    def over_seeds(values: Sequence[float]) -> Estimate:
        return estimate(values, confidence=confidence)

    measured = []
    for interval, trials in groups.items():
        rates = {r.seed: (last_reward(r) - starts[r.seed]) / r.wall_s * HOUR_S for r in trials}
        reached = [t for r in trials if (t := _time_to(r, targets.get(r.seed))) is not None]
        accuracies = _accuracies(trials)
        measured.append(
            Measures(
                interval=interval,
                reward=over_seeds([last_reward(r) for r in trials]),
                reward_difference=_difference(trials, online, confidence=confidence),
                per_hour=over_seeds(list(rates.values())),
                per_accelerator_hour=over_seeds([rate / accelerators for rate in rates.values()]),
                rates=rates,
                target_s=over_seeds(reached) if reached else None,
                reward_in_time=over_seeds([reward_within(r, horizon_s) for r in trials]),
                accuracy=over_seeds(list(accuracies.values())) if accuracies else None,
                accuracy_difference=paired(accuracies, _accuracies(online), confidence=confidence),
                step_s=over_seeds([r.step_s for r in trials]),
                part_s={
                    part: statistics.fmean(r.part_s[part] / r.num_steps for r in trials) for part in PARTS
                },
                sync_bytes_per_step=statistics.fmean(r.sync_bytes / r.num_steps for r in trials),
            )
        )
    return measured


def last_steps(num_steps: int) -> int:
    """How many of a trial's steps its reward per step is the mean of."""
    return max(1, num_steps // LAST_SHARE)


def last_reward(result: TrialResult) -> float:
    """Mean reward of the last steps; of what there is before them if none of these could be scored."""
    return statistics.fmean(_scored(result)[-last_steps(result.num_steps) :])


def reward_within(result: TrialResult, horizon_s: float) -> float:
    """Mean over time of the reward of the step that was going on, from 0 to `horizon_s`."""
    ends = np.minimum(result.ends_s, horizon_s)
    weights = np.diff(ends, prepend=0.0)
    scored = np.array([reward is not None for reward in result.rewards])
    rewards = np.array([reward or 0.0 for reward in result.rewards])
    return float((rewards * weights)[scored].sum() / weights[scored].sum())


def _difference(trials: Results, online: Results, *, confidence: float) -> Estimate | None:
    """Of the rewards per step; over the last steps where there is one seed only."""
    ours, theirs = ({r.seed: r for r in results} for results in (trials, online))
    common = sorted(ours.keys() & theirs.keys())
    if len(common) == 1 and trials is not online:
        (seed,) = common
        pairs = zip(ours[seed].rewards, theirs[seed].rewards, strict=True)
        differences = [a - b for a, b in pairs if a is not None and b is not None]
        last = differences[-last_steps(ours[seed].num_steps) :]
        return estimate(last, confidence=confidence, over=Over.steps) if last else None
    last_rewards = ({seed: last_reward(r) for seed, r in results.items()} for results in (ours, theirs))
    return paired(*last_rewards, confidence=confidence)


def _untrained(results: Results) -> dict[int, float]:
    """By seed, the mean reward of what version 0 wrote."""
    rewards: dict[int, list[float]] = {}
    for result in results:
        pairs = zip(result.versions, result.rewards, strict=True)
        rewards.setdefault(result.seed, []).extend(r for v, r in pairs if v == 0 and r is not None)
    return {seed: statistics.fmean(values) for seed, values in rewards.items()}


def _time_to(result: TrialResult, target: float | None) -> float | None:
    """When the mean over as many steps as the last ones first reaches `target`; None if it never does."""
    if target is None:
        return None
    window = last_steps(result.num_steps)
    ends = [end for end, reward in zip(result.ends_s, result.rewards, strict=True) if reward is not None]
    means = trailing_mean(_scored(result), window)
    reached = [
        end for end, mean in zip(ends[window - 1 :], means[window - 1 :], strict=True) if mean >= target
    ]
    return reached[0] if reached else None


def _scored(result: TrialResult) -> list[float]:
    return [reward for reward in result.rewards if reward is not None]


def _accuracies(results: Results) -> dict[int, float]:
    return {r.seed: r.accuracy for r in results if r.accuracy is not None}
