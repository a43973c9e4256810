"""Rollouts as rows of rollouts.jsonl."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from rlstack.config.profiling import num_logged_prompts
from rlstack.config.schema import Telemetry
from rlstack.data.records import ScoredGroup


def sample_rows(scored: Sequence[ScoredGroup], telemetry: Telemetry) -> Iterator[dict[str, object]]:
    """One row per rollout of a step's groups; `step` counts from 1, as in metrics.jsonl.

    Which groups telemetry.rollouts chooses depends on the step and on the number of its groups alone.
    """
    for scored_group in _chosen(scored, num_logged_prompts(telemetry)):
        group = scored_group.group
        for rollout, score in zip(group.rollouts, scored_group.scores, strict=True):
            yield {
                "step": group.step + 1,
                "task": group.prompt.task,
                "row": group.prompt.row,
                "problem": group.prompt.problem,
                "answer": group.prompt.answer,
                "text": rollout.text,
                "reward": score.reward,
                "outcome": score.outcome.value,
                "version": rollout.version,
                "finished": rollout.finished,
                "length_tokens": len(rollout.token_ids),
            }


def _chosen(scored: Sequence[ScoredGroup], limit: int | None) -> Sequence[ScoredGroup]:
    """At most `limit` of them, in their order."""
    if limit is None or limit >= len(scored):
        return scored
    if limit == 0:
        return ()
    places = random.Random(f"rollouts/{scored[0].group.step}").sample(range(len(scored)), limit)
    return [scored[place] for place in sorted(places)]
