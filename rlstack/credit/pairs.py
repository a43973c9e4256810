"""Scored groups to preference pairs, and to groups of all their pairs."""

from __future__ import annotations

import random

from rlstack.credit.advantages import group_advantages
from rlstack.credit.rewarded import better_pairs, exceeds, rewarded
from rlstack.data.records import ScoredGroup, TrainingExample


def form_pair(scored: ScoredGroup, rng: random.Random) -> TrainingExample | None:
    """A random rollout of the highest reward against a random one of the lowest; None if all rewards tie.

    With binary rewards this is a random correct against a random incorrect rollout, with scalar rewards the
    best against the worst (arXiv 2506.21495, section 2). Rollouts without a reward are left out, and two of
    one text are no pair; a group whose best and worst are all of one text gives another of its pairs.
    """
    pairs = list(better_pairs(scored))
    if not pairs:
        return None
    rewards, rollouts = rewarded(scored)
    best, worst = max(rewards), min(rewards)
    extreme = [(i, j) for i, j in pairs if not exceeds(best, rewards[i]) and not exceeds(rewards[j], worst)]
    pairs = extreme or pairs
    chosen = rng.choice(list(dict.fromkeys(i for i, _ in pairs)))
    rejected = rng.choice([j for i, j in pairs if i == chosen])
    return TrainingExample.of_pair(
        prompt=scored.group.prompt,
        chosen=rollouts[chosen],
        rejected=rollouts[rejected],
        rewards=(rewards[chosen], rewards[rejected]),
    )


def form_group(scored: ScoredGroup, *, std_normalised: bool = False) -> TrainingExample | None:
    """All pairs of the group in which one rollout has the higher reward; None if all rewards tie.

    With binary rewards these are all pairs of a correct and an incorrect rollout (arXiv 2506.21495, Eq. 4).
    The paper has no scalar rewards here; with them every two rollouts make a pair, unless they tie or are
    of one text. Rollouts without a reward are left out.
    """
    pairs = tuple(better_pairs(scored))
    if not pairs:
        return None
    rewards, rollouts = rewarded(scored)
    return TrainingExample(
        prompt=scored.group.prompt,
        rollouts=tuple(rollouts),
        rewards=tuple(rewards),
        pairs=pairs,
        advantages=tuple(group_advantages(rewards, std_normalised=std_normalised)),
    )
