"""Accuracy on held-out prompts: n answers per prompt, mean and standard error over the n seeds. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from rlstack.data.records import ScoredGroup


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """`mean` in [0, 1]; `stderr` is None for a single seed."""

    mean: float
    stderr: float | None
    version: int  # of the weights that answered

    def metrics(self) -> dict[str, float | None]:
        return {"eval/accuracy": self.mean, "eval/accuracy_stderr": self.stderr, "eval/version": self.version}


def accuracy(scored: Sequence[ScoredGroup]) -> Accuracy:
    """The mean over seeds of each seed's accuracy, and the standard error of that mean.

    Seed k answers every prompt once: the k-th rollout of each group (arXiv 2506.21495, section 3.4: N seeds,
    mean and standard error). An answer that could not be scored counts as wrong here, and is reported by the
    rewards' own metrics.

    Args:
        scored: [P] groups of the same n and version, rewards 0 or 1.
    """
    seeds = zip(*(group.scores for group in scored), strict=True)
    per_seed = [statistics.fmean(score.reward or 0.0 for score in seed) for seed in seeds]
    stderr = statistics.stdev(per_seed) / math.sqrt(len(per_seed)) if len(per_seed) > 1 else None
    version = scored[0].group.rollouts[0].version
    return Accuracy(mean=statistics.fmean(per_seed), stderr=stderr, version=version)
