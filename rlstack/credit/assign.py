"""Rewards to the examples that a step trains on."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import assert_never

from rlstack.config.schema import CutOff, Objective, ObjectiveName
from rlstack.credit.advantages import weigh_rollouts
from rlstack.credit.cut_off import as_trained
from rlstack.credit.pairs import form_group, form_pair
from rlstack.credit.rewarded import ties
from rlstack.data.records import ScoredGroup, TrainingExample


@dataclass(frozen=True, slots=True)
class Credit:
    """What one step learns from."""

    examples: list[TrainingExample]  # in the order of the groups
    num_formed: int  # groups in which one rollout is better than another: each can give a pair
    num_skipped: int  # groups whose rewards tie or are missing
    groups: list[ScoredGroup]  # those of the step, with the scores that were compared
    penalty_mean: float | None = None  # added to a reward by objective.cut_off=penalty; None without it

    def metrics(self) -> dict[str, float]:
        """pairs/formed and pairs/skipped, in groups, whatever the objective makes of them.

        With a penalty reward/cut_off_penalty_mean too, over the rollouts that have a reward.
        """
        metrics: dict[str, float] = {"pairs/formed": self.num_formed, "pairs/skipped": self.num_skipped}
        if self.penalty_mean is not None:
            metrics["reward/cut_off_penalty_mean"] = self.penalty_mean
        return metrics


def assign(
    scored: Sequence[ScoredGroup],
    objective: Objective,
    *,
    seed: int,
    step: int,
    max_new_tokens: int | None = None,
) -> Credit:
    """The examples of `step` under `objective`; a pure function of its arguments.

    max_new_tokens: the limit of an answer (rollout.max_new_tokens), which objective.cut_off=penalty needs.

    A group whose rewards tie gives no pair. Under GRPO its rollouts stay, with advantages of 0: the paper's
    mean is over all rollouts (arXiv 2506.21495, Eq. 1), and a KL term acts on them too. Where GRPO is added
    to GroupDPO such a group is left out, so that alpha = 0 is GroupDPO.

    Raises ValueError for objective.cut_off=penalty without `max_new_tokens`.
    """
    rng = random.Random(f"credit/{seed}/{step}")
    groups = as_trained(scored, objective, max_new_tokens=max_new_tokens)
    num_skipped = sum(ties(group) for group in groups)
    return Credit(
        examples=[example for group in groups for example in _examples(group, objective, rng)],
        num_formed=len(groups) - num_skipped,
        num_skipped=num_skipped,
        groups=groups,
        penalty_mean=_mean_change(scored, groups) if objective.cut_off is CutOff.penalty else None,
    )


def rollouts_per_example(objective: Objective, *, n: int) -> int:
    """Rollouts of one example, which have to share a micro-batch, where each prompt has `n`."""
    match objective.name:
        case ObjectiveName.dpo:
            return 2
        case ObjectiveName.group_dpo | ObjectiveName.group_dpo_grpo:
            return n
        case ObjectiveName.grpo:
            return 1
        case name:
            assert_never(name)


def _mean_change(before: Sequence[ScoredGroup], after: Sequence[ScoredGroup]) -> float | None:
    """Of the rewards; None if there is no reward."""
    changes = [
        new.reward - old.reward
        for old_group, new_group in zip(before, after, strict=True)
        for old, new in zip(old_group.scores, new_group.scores, strict=True)
        if old.reward is not None and new.reward is not None
    ]
    return fmean(changes) if changes else None


def _examples(scored: ScoredGroup, objective: Objective, rng: random.Random) -> Sequence[TrainingExample]:
    match objective.name:
        case ObjectiveName.dpo:
            pair = form_pair(scored, rng)
            return [] if pair is None else [pair]
        case ObjectiveName.group_dpo | ObjectiveName.group_dpo_grpo:
            group = form_group(scored, std_normalised=objective.std_normalised)
            return [] if group is None else [group]
        case ObjectiveName.grpo:
            return weigh_rollouts(scored, std_normalised=objective.std_normalised)
        case name:
            assert_never(name)


def has_zero_loss(example: TrainingExample, objective: Objective) -> bool:
    """Return True if `example` adds nothing to the loss of `objective`, nor to its gradient.

    Such an example counts in the loss's divisor and needs no pass through the policy. Under grpo these are
    rollouts that objective.cut_off=mask keeps out of the loss, and, where the loss has no other term (a KL,
    the entropy, a loss of the user's own), those with an advantage of 0: all of a group whose rewards tie. An
    example of pairs always has a loss.
    """
    if example.pairs:
        return False
    if objective.cut_off is CutOff.mask and not any(rollout.finished for rollout in example.rollouts):
        return True
    has_other_terms = objective.kl_scale > 0 or objective.entropy_scale > 0 or objective.loss is not None
    return not any(example.advantages) and not has_other_terms
