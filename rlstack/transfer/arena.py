"""The memory of buckets on their way, and the trailer that tells whether one is what was sent.

A sealed bucket is its payload, padded, followed by two 64-bit words: the payload's digest, and a stamp that
says which bucket of which version this is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from rlstack.transfer.digest import digest_tensor
from rlstack.transfer.layout import View, shape, volume
from rlstack.transfer.move_buckets import ALIGNMENT_BYTES, Bucket

TRAILER_BYTES = 16


def sealed_bytes(bucket: Bucket) -> int:
    """What `bucket` takes on the wire."""
    return -(-bucket.num_bytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES + TRAILER_BYTES


def arena(buckets: Sequence[Bucket], *, allocate: Callable[[int], Tensor]) -> list[Tensor]:
    """A buffer for each of the sealed buckets, uint8, all of one allocation of this many bytes."""
    sizes = [sealed_bytes(bucket) for bucket in buckets]
    return list(allocate(sum(sizes)).split(sizes))


def windows(bucket: Bucket, buffer: Tensor, dtypes: Mapping[str, torch.dtype]) -> list[Tensor]:
    """The data of each move of `bucket` in `buffer`, in the move's shape; no copies."""
    views = []
    for move, offset in zip(bucket.moves, bucket.offsets, strict=True):
        dtype = dtypes[move.name]
        end = offset + volume(move.box) * dtype.itemsize
        views.append(buffer[offset:end].view(dtype).view(shape(move.box)))
    return views


def window(tensor: Tensor, view: View, shape: tuple[int, ...]) -> Tensor:
    """The window of `tensor` that `view` describes, sharing its storage."""
    return tensor.detach().as_strided(shape, view.strides, tensor.storage_offset() + view.offset)


def seal(buffer: Tensor, bucket: Bucket, *, version: int) -> None:
    """Write the trailer of `buffer`, which is as long as the sealed bucket; a GPU is not waited for."""
    trailer = buffer[-TRAILER_BYTES:].view(torch.int64)
    trailer[0] = digest_tensor(buffer[:-TRAILER_BYTES])
    trailer[1] = _stamp(bucket, version)


def damage(buffer: Tensor, bucket: Bucket, *, version: int) -> str | None:
    """None if `buffer` is `bucket` of `version` as it was sealed, otherwise what it is."""
    trailer = buffer[-TRAILER_BYTES:].view(torch.int64)
    sums = torch.stack([trailer[0] - digest_tensor(buffer[:-TRAILER_BYTES]), trailer[1]])
    difference, stamp = sums.tolist()
    if difference:
        return "damaged on the way"
    if stamp != _stamp(bucket, version):
        return "another bucket, or of another version"
    return None


def _stamp(bucket: Bucket, version: int) -> int:
    """A signed 64-bit number."""
    identity = f"{version} {bucket.source} {bucket.receiver} {bucket.index}".encode()
    return int.from_bytes(hashlib.blake2b(identity, digest_size=8).digest(), "little", signed=True)
