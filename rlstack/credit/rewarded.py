"""Which rollouts of a group have a reward, and whether the rewards tell them apart."""

from __future__ import annotations

import math
from collections.abc import Iterator

from rlstack.data.records import Rollout, ScoredGroup

# Rewards nearer than this, absolute or relative to the larger one, tie. The scores of one conversation in
# batches of other widths differ by up to 7e-7 in fp32, for scores of magnitude 1 (configs/tiny/reward_model).
TIE_TOLERANCE = 1e-6


def rewarded(scored: ScoredGroup) -> tuple[list[float], list[Rollout]]:
    """The rewards of the group and the rollouts that have one, in the group's order."""
    pairs = zip(scored.scores, scored.group.rollouts, strict=True)
    kept = [(score.reward, rollout) for score, rollout in pairs if score.reward is not None]
    return [reward for reward, _ in kept], [rollout for _, rollout in kept]


def exceeds(reward: float, other: float) -> bool:
    """Whether `reward` is higher than `other` by more than the tolerance for ties."""
    return reward > other and not math.isclose(reward, other, rel_tol=TIE_TOLERANCE, abs_tol=TIE_TOLERANCE)


def better_pairs(scored: ScoredGroup) -> Iterator[tuple[int, int]]:
    """(better, worse) as indices of what `rewarded` gives: of two rewards that do not tie, and two texts.

    Rewards of one text differ only by the noise of a plug-in, or by what a verifier had no time for.
    """
    rewards, rollouts = rewarded(scored)
    if not rewards or not exceeds(max(rewards), min(rewards)):
        return
    for i, reward in enumerate(rewards):
        for j, other in enumerate(rewards):
            if exceeds(reward, other) and rollouts[i].text != rollouts[j].text:
                yield i, j


def ties(scored: ScoredGroup) -> bool:
    """Whether no rollout of the group has a higher reward than another one of another text."""
    return next(better_pairs(scored), None) is None
