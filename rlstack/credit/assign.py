"""Rewards to the examples that a step trains on."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never

from rlstack.config.schema import Objective, ObjectiveName
from rlstack.credit.advantages import weigh_rollouts
from rlstack.credit.pairs import form_pair
from rlstack.data.records import Example, ScoredGroup


@dataclass(frozen=True, slots=True)
class Credit:
    """What one step learns from."""

    examples: list[Example]  # of one kind, in the order of the groups
    num_skipped: int  # groups that teach nothing, because their rewards tie or are missing

    def metrics(self) -> dict[str, float]:
        """pairs/formed (examples of either kind) and pairs/skipped (groups)."""
        return {"pairs/formed": len(self.examples), "pairs/skipped": self.num_skipped}


def assign(scored: Sequence[ScoredGroup], objective: Objective, *, seed: int, step: int) -> Credit:
    """The examples of `step` under `objective`; a pure function of its arguments.

    Groups whose rewards tie are skipped, except under a KL term, to which they still contribute.
    """
    rng = random.Random(f"credit/{seed}/{step}")
    by_group = [_examples(group, objective, rng) for group in scored]
    return Credit(
        examples=[example for examples in by_group for example in examples],
        num_skipped=sum(not examples for examples in by_group),
    )


def _examples(scored: ScoredGroup, objective: Objective, rng: random.Random) -> Sequence[Example]:
    match objective.name:
        case ObjectiveName.dpo:
            pair = form_pair(scored, rng)
            return [] if pair is None else [pair]
        case ObjectiveName.grpo:
            weighted = weigh_rollouts(scored)
            teaches = objective.kl_scale > 0 or any(example.advantage != 0 for example in weighted)
            return weighted if teaches else []
        case name:
            assert_never(name)
