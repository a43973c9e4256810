"""Where a rank holds which part of which weight, in Hugging Face coordinates. Plain data, no torch.

A box is a half-open interval per dimension of a Hugging Face tensor. Source and destination layouts are both
lists of pieces, so that a plan between them is an intersection of boxes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

Box = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class View:
    """A strided window into one of a rank's own tensors; its shape is that of the box it holds."""

    tensor: str  # name of the tensor on its rank
    offset: int  # elements from the tensor's first one to the window's first one
    strides: tuple[int, ...]  # elements, one per dimension of the box

    def narrowed(self, box: Box, to: Box) -> View:
        """The window on `to`, a part of `box`, which this window holds."""
        if to == box:
            return self
        skipped = sum(
            (low - start) * stride for (low, _), (start, _), stride in zip(to, box, self.strides, strict=True)
        )
        return View(self.tensor, self.offset + skipped, self.strides)


@dataclass(frozen=True, slots=True)
class Piece:
    """A rank holds the box `box` of the Hugging Face tensor `name` in `view`."""

    name: str
    box: Box
    view: View


def intersection(a: Box, b: Box) -> Box | None:
    """The part that both boxes have, or None."""
    common = []
    for (la, ha), (lb, hb) in zip(a, b, strict=True):
        low, high = la if la > lb else lb, ha if ha < hb else hb
        if low >= high:
            return None
        common.append((low, high))
    return tuple(common)


def shape(box: Box) -> tuple[int, ...]:
    return tuple(high - low for low, high in box)


def volume(box: Box) -> int:
    """Elements of the box."""
    return prod([high - low for low, high in box])


def encode(pieces: Sequence[Piece]) -> str:
    """A rank's layout as JSON."""
    return json.dumps([[p.name, p.box, p.view.tensor, p.view.offset, p.view.strides] for p in pieces])


def decode(text: str) -> list[Piece]:
    """The inverse of `encode`."""
    return [
        Piece(name, tuple(map(tuple, box)), View(tensor, offset, tuple(strides)))
        for name, box, tensor, offset, strides in json.loads(text)
    ]
