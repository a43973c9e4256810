"""What the digest of a bucket sees beyond a single flipped bit (for that, see test_buckets.py)."""

from __future__ import annotations

import itertools

import torch

from rlstack.transfer.digest import _keys, _row_sums, digest

SIGN_BITS = [8 * 4 * word + 31 for word in range(40)]


def flipped(data: torch.Tensor, *bits: int) -> torch.Tensor:
    data = data.clone()
    for bit in bits:
        data[bit // 8] ^= 1 << bit % 8
    return data


def test_two_flipped_signs_do_not_cancel():
    data = torch.randn(40).view(torch.uint8)
    assert digest(data) not in {digest(flipped(data, *pair)) for pair in itertools.combinations(SIGN_BITS, 2)}


def test_exchanged_rows_and_a_row_moved_by_one_word_are_seen():
    rows = torch.arange(3 << 16)
    first, second, third = rows.view(3, -1)
    others = [torch.cat([second, first, third]), torch.cat([first, third, second]), rows.roll(1)]
    assert digest(rows.view(torch.uint8)) not in {digest(other.view(torch.uint8)) for other in others}


def test_the_way_of_a_gpu_gives_the_same():
    """Integers wrap alike on all devices; here the formula runs without the dot products of the CPU."""
    words = torch.randint(-(2**63), 2**63 - 1, (3, 1 << 16))
    keys, high_keys = _keys(torch.device("cpu"))
    assert torch.equal(_row_sums(words), (words * keys + (words >> 32) * high_keys).sum(dim=1))
