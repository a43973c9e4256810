"""Which tokens a context-parallel rank holds."""

from __future__ import annotations

import importlib
from itertools import accumulate, pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlstack.policy.zigzag import padded_starts, rank_places

LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=6)


@given(lengths=LENGTHS, num_ranks=st.sampled_from([1, 2, 3, 4]), num_slices=st.sampled_from([1, 2, 8]))
def test_padding_follows_each_sequence_and_makes_it_divisible(lengths, num_ranks, num_slices) -> None:
    starts = list(accumulate(lengths, initial=0))
    padded, places = padded_starts(starts, num_ranks=num_ranks, num_slices=num_slices)
    assert padded[-1] % (num_ranks * num_slices) == 0
    assert len(padded) - len(starts) in (0, 1)
    for (low, high), (start, end) in zip(pairwise(starts), pairwise(padded), strict=False):
        assert places[low:high].tolist() == list(range(start, start + high - low))
        if num_ranks > 1:
            assert (end - start) % (2 * num_ranks) == 0
        assert end - start - (high - low) < 2 * num_ranks
    if num_ranks == num_slices == 1:
        assert padded == starts


@given(lengths=LENGTHS, num_ranks=st.sampled_from([1, 2, 3, 4]))
def test_every_token_is_of_one_rank_and_all_have_equal_causal_work(lengths, num_ranks) -> None:
    starts, _ = padded_starts(list(accumulate(lengths, initial=0)), num_ranks=num_ranks)
    places = rank_places(starts, num_ranks=num_ranks)
    assert sorted(places.flatten().tolist()) == list(range(starts[-1]))
    for start, end in pairwise(starts):
        inside = (places >= start) & (places < end)
        work = np.where(inside, places - start + 1, 0).sum(axis=1)
        assert len(set(work.tolist())) == 1


@pytest.mark.parametrize("num_ranks", [1, 2, 4])
def test_the_order_is_that_of_megatrons_rotary_embedding(num_ranks) -> None:

    importlib.import_module("rlstack.policy.backend")  # adapts megatron-core to this machine, so first
    rope = importlib.import_module("megatron.core.models.common.embeddings.rope_utils")
    starts = [0, 16, 24, 48]
    places = rank_places(starts, num_ranks=num_ranks)
    for rank in range(num_ranks):
        found = [
            rope._get_thd_freqs_on_this_cp_rank(
                rank, num_ranks, torch.empty((end - start) // num_ranks), torch.arange(start, end)
            )
            for start, end in pairwise(starts)
        ]
        assert torch.cat(found).tolist() == places[rank].tolist()
