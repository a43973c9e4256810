"""A 64-bit digest of bytes that depends on their order: what tells a damaged bucket from a good one.

Against accidents (a swapped slice, a stale buffer, flipped bits), not against an adversary.
"""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor

_WORD_BYTES = 8
_ROW_WORDS = 1 << 16  # a row, its keys and its temporaries stay in a core's cache
_BLOCK_ROWS = 128  # on a GPU: bounds the temporaries to a few times 64 MiB
_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)  # torch's integers are signed
_MULTIPLIERS = (0xBF58476D1CE4E5B9 - (1 << 64), 0x94D049BB133111EB - (1 << 64))


def digest(data: Tensor) -> int:
    """Digest of `data`, [n] uint8 and contiguous, as an unsigned 64-bit number."""
    return int(digest_tensor(data)) & 0xFFFFFFFFFFFFFFFF


@torch.no_grad()
def digest_tensor(data: Tensor) -> Tensor:
    """As `digest`, as a scalar int64 tensor on the device of `data`, which is not waited for.

    Multilinear hashing of 32-bit characters with 64-bit keys (Lemire and Kaser, "Strongly universal string
    hashing is fast", 2014), modulo 2^64: per 8-byte word x the products key * x and key' * (x >> 32). Both
    keys are odd, hence a change within one 32-bit half of a word always shows. Rows of words have keys
    of their own on top.
    """
    assert data.dtype == torch.uint8 and data.dim() == 1 and data.is_contiguous()
    num_whole = data.numel() // (_ROW_WORDS * _WORD_BYTES) * _ROW_WORDS * _WORD_BYTES
    tail = F.pad(data[num_whole:], (0, -data.numel() % _WORD_BYTES)).view(torch.int64)
    sums = torch.cat(
        [_row_sums(data[:num_whole].view(torch.int64).view(-1, _ROW_WORDS)), _row_sums(tail.unsqueeze(0))]
    )
    keys = _mix(torch.arange(sums.numel(), dtype=torch.int64, device=data.device)) | 1
    return (sums * keys).sum() + data.numel()


def _row_sums(words: Tensor) -> Tensor:
    """[r] int64, the hash of each row of `words`, [r, m] int64 with m <= _ROW_WORDS."""
    keys, high_keys = (key[: words.size(1)] for key in _keys(words.device))
    if words.device.type == "cpu":
        high = torch.empty_like(keys)
        sums = torch.empty(words.size(0), dtype=torch.int64)
        for row, total in zip(words, sums, strict=True):
            torch.bitwise_right_shift(row, 32, out=high)
            torch.add(torch.dot(row, keys), torch.dot(high, high_keys), out=total)
        return sums
    # There is no dot product of integers on a GPU.
    blocks = words.split(_BLOCK_ROWS)
    return torch.cat([(block * keys + (block >> 32) * high_keys).sum(dim=1) for block in blocks])


@functools.cache
def _keys(device: torch.device) -> tuple[Tensor, Tensor]:
    """Two times [_ROW_WORDS] int64, odd."""
    keys = _mix(torch.arange(2 * _ROW_WORDS, dtype=torch.int64, device=device)) | 1
    first, second = keys.view(2, _ROW_WORDS)
    return first, second


def _mix(numbers: Tensor) -> Tensor:
    """splitmix64 of each of the int64 `numbers` (Steele, Lea and Flood, OOPSLA 2014)."""
    x = (numbers + 1) * _GOLDEN
    # The shifts are arithmetic; the masks make them logical.
    x = (x ^ ((x >> 30) & 0x3FFFFFFFF)) * _MULTIPLIERS[0]
    x = (x ^ ((x >> 27) & 0x1FFFFFFFFF)) * _MULTIPLIERS[1]
    return x ^ ((x >> 31) & 0x1FFFFFFFF)
