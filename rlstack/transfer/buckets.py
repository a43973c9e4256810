"""How tensors are laid out in the buckets that go over the wire: pure, the same on both ends."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

ALIGNMENT_BYTES = 16  # an offset that every dtype can be viewed at


class TensorSpec(NamedTuple):
    """A tensor as it travels; a plain (name, shape, dtype) tuple will do where one is asked for."""

    name: str
    shape: tuple[int, ...]
    dtype: str  # torch's name of it: float32, bfloat16

    @property
    def num_bytes(self) -> int:
        return math.prod(self.shape) * self.torch_dtype.itemsize

    @property
    def torch_dtype(self) -> torch.dtype:
        dtype = getattr(torch, self.dtype)
        assert isinstance(dtype, torch.dtype), self.dtype
        return dtype


@dataclass(frozen=True, slots=True)
class Bucket:
    """Tensors sent together: `offsets[i]` is the first byte of `specs[i]`."""

    specs: tuple[TensorSpec, ...]
    offsets: tuple[int, ...]
    num_bytes: int  # padding between tensors included

    def views(self, buffer: torch.Tensor) -> list[torch.Tensor]:
        """The bucket's tensors as views of `buffer`, [>= num_bytes] uint8."""
        return [
            buffer[offset : offset + spec.num_bytes].view(spec.torch_dtype).view(spec.shape)
            for spec, offset in zip(self.specs, self.offsets, strict=True)
        ]


def plan_buckets(specs: Sequence[tuple[str, Sequence[int], str]], *, bucket_bytes: int) -> list[Bucket]:
    """Fill buckets of at most `bucket_bytes` in the order of `specs`; a larger tensor gets its own.

    A function of its arguments alone, so that no layout has to travel with the data.
    """
    buckets: list[Bucket] = []
    pending: list[TensorSpec] = []
    offsets: list[int] = []
    end = 0
    for name, shape, dtype in specs:
        spec = TensorSpec(name, tuple(shape), dtype)
        offset = -(-end // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
        if pending and offset + spec.num_bytes > bucket_bytes:
            buckets.append(Bucket(tuple(pending), tuple(offsets), end))
            pending, offsets, offset = [], [], 0
        pending.append(spec)
        offsets.append(offset)
        end = offset + spec.num_bytes
    if pending:
        buckets.append(Bucket(tuple(pending), tuple(offsets), end))
    return buckets
