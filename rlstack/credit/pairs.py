"""Scored groups to preference pairs."""

from __future__ import annotations

import random

from rlstack.data.records import PreferencePair, ScoredGroup


def form_pair(scored: ScoredGroup, rng: random.Random) -> PreferencePair | None:
    """A random rollout of the highest reward against a random one of the lowest; None if all rewards tie.

    With binary rewards this is a random correct against a random incorrect rollout, with scalar rewards the
    best against the worst (arXiv 2506.21495, section 2). Rollouts without a reward are left out.
    """
    rewarded = [
        (score.reward, rollout)
        for score, rollout in zip(scored.scores, scored.group.rollouts, strict=True)
        if score.reward is not None
    ]
    if ties(scored):
        return None
    rewards = [reward for reward, _ in rewarded]
    chosen = rng.choice([rollout for reward, rollout in rewarded if reward == max(rewards)])
    rejected = rng.choice([rollout for reward, rollout in rewarded if reward == min(rewards)])
    return PreferencePair(prompt=scored.group.prompt, chosen=chosen, rejected=rejected)


def ties(scored: ScoredGroup) -> bool:
    """Whether no rollout of the group has a higher reward than another."""
    return len({score.reward for score in scored.scores} - {None}) < 2
