"""How long the correct and the incorrect rollouts of a run were, step by step."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from rlstack.telemetry.curves import RunLog
from rlstack.telemetry.rollout_shards import ROLLOUTS, read_rollouts


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """The verified rollouts of a curve, all runs together; each array is [number of rollouts] int64."""

    steps: np.ndarray
    lengths: np.ndarray  # tokens, end token included
    correct: np.ndarray  # 1 or 0


def read_lengths(runs: Iterable[RunLog]) -> Lengths:
    """Of the rollouts of tasks whose rewards are all 1 or 0, from rollouts.jsonl."""
    by_task: dict[str, list[tuple[int, int, float]]] = {}
    for run in runs:
        for row in read_rollouts(run.path / ROLLOUTS):
            if row["reward"] is not None:
                found = row["step"], row["length_tokens"], row["reward"]
                by_task.setdefault(row["task"], []).append(found)
    verified = [rows for rows in by_task.values() if {reward for *_, reward in rows} <= {0, 1}]
    table = np.array([row for rows in verified for row in rows], dtype=np.int64).reshape(-1, 3)
    return Lengths(steps=table[:, 0], lengths=table[:, 1], correct=table[:, 2])


def length_histogram(
    lengths: Lengths, *, correct: bool, step_edges: np.ndarray, length_edges: np.ndarray
) -> np.ndarray:
    """The share of the (in)correct rollouts of a block of steps in each range of lengths.

    Args:
        step_edges, length_edges: [s + 1] and [l + 1], rising; of its two edges, a bin holds the lower one.

    Returns:
        [s, l] float64; a row sums to 1, or is NaN where there is no such rollout.
    """
    chosen = lengths.correct == int(correct)
    counts, _, _ = np.histogram2d(
        lengths.steps[chosen], lengths.lengths[chosen], bins=(step_edges, length_edges)
    )
    totals = counts.sum(1, keepdims=True)
    return np.divide(counts, totals, out=np.full_like(counts, np.nan), where=totals > 0)
