"""A 64-bit digest of bytes that depends on their order: what tells a damaged bucket from a good one.

Against accidents (a swapped slice, a stale buffer, a flipped bit), not against an adversary.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

_WORD_BYTES = 8
_CHUNK_WORDS = 1 << 16  # temporaries of 512 KiB stay in a core's cache
_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)  # torch's integers are signed
_MULTIPLIER = 0xBF58476D1CE4E5B9 - (1 << 64)


def digest(data: torch.Tensor) -> int:
    """Digest of `data`, [n] uint8 and contiguous, as an unsigned 64-bit number.

    The sum, modulo 2^64, of a bijective mix of every 8-byte word with its position: the first rounds of
    splitmix64 (Steele, Lea and Flood, OOPSLA 2014). Bijective, so that a change within one word always shows;
    position-dependent, so that exchanged words show too.
    """
    assert data.dtype == torch.uint8 and data.dim() == 1 and data.is_contiguous()
    tail = -data.numel() % _WORD_BYTES
    whole = data[: data.numel() - data.numel() % _WORD_BYTES].view(torch.int64)
    total = data.new_tensor(data.numel(), dtype=torch.int64)
    for start in range(0, whole.numel(), _CHUNK_WORDS):
        total += _mix(whole[start : start + _CHUNK_WORDS], start)
    if tail:
        last = F.pad(data[whole.numel() * _WORD_BYTES :], (0, tail)).view(torch.int64)
        total += _mix(last, whole.numel())
    return int(total) & 0xFFFFFFFFFFFFFFFF


def _mix(words: torch.Tensor, start: int) -> torch.Tensor:
    """Sum over the mixed `words`, [m] int64, of which the first is word number `start`."""
    x = torch.arange(start + 1, start + 1 + words.numel(), dtype=torch.int64, device=words.device)
    x.mul_(_GOLDEN).add_(words)
    x.bitwise_xor_((x >> 32).bitwise_and_(0xFFFFFFFF))  # the shift is arithmetic; the mask makes it logical
    x.mul_(_MULTIPLIER)
    x.bitwise_xor_((x >> 29).bitwise_and_(0x7FFFFFFFF))
    return x.sum()
