"""Measures of sampled answers, on plain numbers. Pure.

Shapes: P prompts, n answers per prompt; seed k is the k-th answer of every prompt.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Hashable, Sequence


def over_seeds(values: Sequence[Sequence[float]]) -> tuple[float, float | None]:
    """The mean over seeds of each seed's mean, and the standard error of that mean (None for one seed).

    arXiv 2506.21495, section 3.4: each seed answers every prompt once; the standard error is the sample
    standard deviation of the n means over the square root of n.

    Args:
        values: [P][n].
    """
    per_seed = [statistics.fmean(seed) for seed in zip(*values, strict=True)]
    return statistics.fmean(per_seed), standard_error(per_seed)


def standard_error(values: Sequence[float]) -> float | None:
    """Of the mean of `values`: their sample standard deviation over the root of n; None below two values."""
    return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None


def pass_at_k(num_answers: int, num_correct: int, k: int) -> float:
    """The chance that one of k answers, drawn from these without replacement, is correct.

    The unbiased estimator 1 - C(n - c, k) / C(n, k) of Chen et al. 2021 (arXiv 2107.03374, Eq. 1), from exact
    integers; k is at most `num_answers`.
    """
    return 1 - math.comb(num_answers - num_correct, k) / math.comb(num_answers, k)


def ks_for(num_answers: int) -> list[int]:
    """The k of which pass@k is told: the powers of two from 2, and n itself."""
    powers = [2**i for i in range(1, num_answers.bit_length()) if 2**i <= num_answers]
    return sorted({*powers, num_answers} - {1})


def majority_vote(votes: Sequence[Hashable | None], rewards: Sequence[float]) -> float:
    """The reward of the answer that most of the n answers give.

    Where several lead, the mean of theirs: what a fair draw among them gets on average. None does not vote,
    and without a vote the reward is 0. Equal votes with unequal rewards (a verification that timed out) count
    with their mean.
    """
    rewards_by_vote: dict[Hashable, list[float]] = defaultdict(list)
    for vote, reward in zip(votes, rewards, strict=True):
        if vote is not None:
            rewards_by_vote[vote].append(reward)
    most = max(map(len, rewards_by_vote.values()), default=0)
    leading = [statistics.fmean(of_vote) for of_vote in rewards_by_vote.values() if len(of_vote) == most]
    return statistics.fmean(leading) if leading else 0.0
