"""Which tokens of packed sequences each context-parallel rank holds. Pure.

Every sequence is cut into 2R equal chunks for R ranks; rank r holds chunks r and 2R - 1 - r, so that under a
causal mask all ranks have the same work. The order is that of megatron-core (rope_utils.py,
_get_thd_freqs_on_this_cp_rank) and of Transformer Engine (thd_get_partitioned_indices).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np


def padded_starts(
    starts: Sequence[int], *, num_ranks: int, num_slices: int = 1
) -> tuple[list[int], np.ndarray]:
    """Where sequences start once they can be cut, and where their tokens have gone.

    Each length is rounded up to a multiple of 2R, for R > 1, and one more sequence is put last where a rank's
    tokens would otherwise not divide into `num_slices` equal ones.

    starts: [S + 1], of the sequences and of their end. Returns the same of the padded sequences, and the
    [T] int64 places of the T tokens.
    """
    multiple = 2 * num_ranks if num_ranks > 1 else 1
    padded = [0]
    places = []
    for low, high in pairwise(starts):
        places.append(np.arange(padded[-1], padded[-1] + high - low))
        padded.append(padded[-1] + _round_up(high - low, multiple))
    whole = _round_up(padded[-1], math.lcm(multiple, num_ranks * num_slices))
    if whole > padded[-1]:
        padded.append(whole)
    return padded, np.concatenate(places)


def rank_places(starts: Sequence[int], *, num_ranks: int) -> np.ndarray:
    """[R, T' / R] int64: for each rank the places of its tokens among T', in its order.

    starts: of padded sequences, as `padded_starts` gives them.
    """
    if num_ranks == 1:
        return np.arange(starts[-1])[None]
    chunks = [[rank, 2 * num_ranks - 1 - rank] for rank in range(num_ranks)]
    sequences = [np.arange(low, high).reshape(2 * num_ranks, -1) for low, high in pairwise(starts)]
    return np.concatenate([sequence[chunks].reshape(num_ranks, -1) for sequence in sequences], axis=1)


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
