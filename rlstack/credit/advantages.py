"""Scored groups to rollouts with advantages."""

from __future__ import annotations

from statistics import fmean

from rlstack.data.records import ScoredGroup, WeightedRollout


def weigh_rollouts(scored: ScoredGroup) -> list[WeightedRollout]:
    """Every rewarded rollout of the group with A_i = r_i - mean(r), not divided by the standard deviation.

    arXiv 2506.21495, section 2 (the advantage of arXiv 2503.20783). Rollouts without a reward are left out,
    also of the mean. Equal rewards give advantages of exactly 0.
    """
    rewarded = [
        (score.reward, rollout)
        for score, rollout in zip(scored.scores, scored.group.rollouts, strict=True)
        if score.reward is not None
    ]
    if not rewarded:
        return []
    rewards = [reward for reward, _ in rewarded]
    # The mean of equal floats may differ from them in the last bit.
    baseline = rewards[0] if min(rewards) == max(rewards) else fmean(rewards)
    return [
        WeightedRollout(prompt=scored.group.prompt, rollout=rollout, advantage=reward - baseline)
        for reward, rollout in rewarded
    ]
