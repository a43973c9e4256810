"""Rollouts as rows of rollouts.jsonl."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rlstack.data.records import ScoredGroup


def sample_rows(scored: Iterable[ScoredGroup]) -> Iterator[dict[str, object]]:
    """One row per rollout; `step` counts like in metrics.jsonl, from 1."""
    for scored_group in scored:
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
