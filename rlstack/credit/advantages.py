"""Scored groups to examples of one rollout with its advantage."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, stdev

from rlstack.credit.rewarded import exceeds, rewarded
from rlstack.data.records import ScoredGroup, TrainingExample

_STD_FLOOR = 1e-6  # added to the standard deviation, as in TRL


def group_advantages(rewards: Sequence[float], *, std_normalised: bool = False) -> list[float]:
    """A_i = r_i - mean(r); rewards that all tie give advantages of exactly 0.

    arXiv 2506.21495, section 2 (the advantage of arXiv 2503.20783). std_normalised: divided by the sample
    standard deviation of the rewards, as in arXiv 2402.03300, section 4.1.
    """
    if not exceeds(max(rewards), min(rewards)):
        return [0.0] * len(rewards)
    baseline = fmean(rewards)
    scale = stdev(rewards) + _STD_FLOOR if std_normalised else 1.0
    return [(reward - baseline) / scale for reward in rewards]


def weigh_rollouts(scored: ScoredGroup, *, std_normalised: bool = False) -> list[TrainingExample]:
    """Every rewarded rollout of the group with its advantage.

    Rollouts without a reward are left out, also of the mean.
    """
    rewards, rollouts = rewarded(scored)
    if not rewards:
        return []
    return [
        TrainingExample.of_rollout(
            prompt=scored.group.prompt, rollout=rollout, advantage=advantage, reward=reward
        )
        for rollout, reward, advantage in zip(
            rollouts, rewards, group_advantages(rewards, std_normalised=std_normalised), strict=True
        )
    ]
