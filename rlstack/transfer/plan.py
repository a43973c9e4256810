"""Which source sends which part of which tensor to which receiver. Pure: no torch, nothing is moved here.

Sources are the trainer's ranks, receivers the workers of all engines. Every rank builds the plan from the
published layouts of all; equal digests say that all built the same one.
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple

from rlstack.transfer.layout import Box, Piece, View, intersection, volume

# A move below this share of its receiver's bytes balances nothing: better that it follows a pair that exists.
TINY_SHARE = 1e-4


class PlanError(ValueError):
    """The layouts do not fit together: some element would arrive never or twice."""


@dataclass(frozen=True, slots=True)
class Move:
    """`source` sends the box `box` of the Hugging Face tensor `name` to `receiver`."""

    source: int
    receiver: int
    name: str
    box: Box
    source_view: View
    receiver_view: View

    def narrowed(self, to: Box) -> Move:
        """The move of `to`, a part of the box."""
        views = (view.narrowed(self.box, to) for view in (self.source_view, self.receiver_view))
        return Move(self.source, self.receiver, self.name, to, *views)


@dataclass(frozen=True, slots=True)
class Relay:
    """Receiver `sender` passes all that it gets on to receiver `receiver`, whose layout is the same."""

    sender: int
    receiver: int


@dataclass(frozen=True)
class Plan:
    """Every move, in the receivers' order; `itemsizes` are the bytes of an element on the wire, by tensor."""

    moves: tuple[Move, ...]
    itemsizes: Mapping[str, int]
    relays: tuple[Relay, ...] = ()

    def digest(self) -> str:
        """sha256 of the plan as JSON; whatever changes a byte on the wire or its place changes this."""
        sha = hashlib.sha256(json.dumps(sorted(self.itemsizes.items())).encode())
        for move in self.moves:
            views = [[v.tensor, v.offset, v.strides] for v in (move.source_view, move.receiver_view)]
            sha.update(json.dumps([move.source, move.receiver, move.name, move.box, views]).encode())
        sha.update(json.dumps([[relay.sender, relay.receiver] for relay in self.relays]).encode())
        return sha.hexdigest()

    def num_bytes(self, move: Move) -> int:
        return volume(move.box) * self.itemsizes[move.name]

    def bytes_sent(self, source: int) -> int:
        """Bytes that leave `source`, padding and trailers apart."""
        return self._totals[0][source]

    def bytes_received(self, receiver: int) -> int:
        """Bytes that arrive at `receiver`, from sources or through a relay, padding and trailers apart."""
        senders = {relay.receiver: relay.sender for relay in self.relays}
        while receiver in senders:
            receiver = senders[receiver]
        return self._totals[1][receiver]

    @cached_property
    def _totals(self) -> tuple[Mapping[int, int], Mapping[int, int]]:
        sent: dict[int, int] = defaultdict(int)
        received: dict[int, int] = defaultdict(int)
        for move in self.moves:
            num_bytes = self.num_bytes(move)
            sent[move.source] += num_bytes
            received[move.receiver] += num_bytes
        return sent, received


def build_plan(
    sources: Sequence[Sequence[Piece]],
    receivers: Sequence[Sequence[Piece]],
    *,
    shapes: Mapping[str, tuple[int, ...]],
    itemsizes: Mapping[str, int],
) -> Plan:
    """Intersect what the receivers hold with what the sources hold, and spread the moves over replicas.

    sources, receivers: the pieces of each rank. shapes: of the Hugging Face tensors, by name.
    itemsizes: bytes of an element on the wire, by name.

    The order in which a source lists its pieces is of no consequence.

    Raises PlanError if a tensor is unknown, a box leaves its tensor, different boxes of the sources overlap,
    or an element that a receiver holds has no source.
    """
    for side in (sources, receivers):
        _check_boxes(side, shapes)
    holders = _holders(sources)
    moves = list(_wanted(receivers, holders, itemsizes))
    chosen = _spread(moves)
    return Plan(tuple(move.to_move(source) for move, source in zip(moves, chosen, strict=True)), itemsizes)


def encode(pieces: Sequence[Piece]) -> str:
    """A rank's layout as JSON."""
    return json.dumps([[p.name, p.box, p.view.tensor, p.view.offset, p.view.strides] for p in pieces])


def decode(text: str) -> list[Piece]:
    """The inverse of `encode`."""
    return [
        Piece(name, tuple((low, high) for low, high in box), View(tensor, offset, tuple(strides)))
        for name, box, tensor, offset, strides in json.loads(text)
    ]


class _Wanted(NamedTuple):
    """A move whose source is still open: `replicas` hold the same box."""

    receiver: int
    piece: Piece
    box: Box
    replicas: Mapping[int, Piece]
    num_bytes: int

    def to_move(self, source: int) -> Move:
        held = self.replicas[source]
        return Move(
            source,
            self.receiver,
            self.piece.name,
            self.box,
            held.view.narrowed(held.box, self.box),
            self.piece.view.narrowed(self.piece.box, self.box),
        )


class _Holders:
    """The sources' distinct boxes of one tensor, sorted along the dimension that they cut most."""

    def __init__(self, replicas: Mapping[Box, Mapping[int, Piece]]) -> None:
        self._replicas = replicas
        num_dims = len(next(iter(replicas)))
        self._axis = max(range(num_dims), key=lambda axis: len({box[axis] for box in replicas}), default=0)
        self._boxes = sorted(replicas, key=lambda box: (self._interval(box), box))
        self._lows = [self._interval(box)[0] for box in self._boxes]
        # The largest end so far: unlike the ends themselves it can be searched by bisection.
        self._highs = list(accumulate((self._interval(box)[1] for box in self._boxes), max))

    def __iter__(self) -> Iterator[Box]:
        return iter(self._boxes)

    def overlaps(self, box: Box) -> list[tuple[Box, Mapping[int, Piece]]]:
        """What sources hold of `box`: the common part and, by source, the piece that it is part of."""
        low, high = self._interval(box)
        near = self._boxes[bisect_right(self._highs, low) : bisect_left(self._lows, high)]
        common = ((intersection(held, box), self._replicas[held]) for held in near)
        return [(part, replicas) for part, replicas in common if part is not None]  # a scalar's box is empty

    def _interval(self, box: Box) -> tuple[int, int]:
        return box[self._axis] if box else (0, 1)


def _holders(sources: Sequence[Sequence[Piece]]) -> dict[str, _Holders]:
    replicas: dict[str, dict[Box, dict[int, Piece]]] = defaultdict(lambda: defaultdict(dict))
    for source, pieces in enumerate(sources):
        # Sorted, for a rank may hold a box twice and the choice must not depend on its order.
        for piece in sorted(pieces, key=lambda p: (p.name, p.box, p.view.tensor, p.view.offset)):
            if volume(piece.box):
                replicas[piece.name][piece.box].setdefault(source, piece)
    holders = {name: _Holders(boxes) for name, boxes in replicas.items()}
    for name, boxes in holders.items():
        for box in boxes:
            if len(boxes.overlaps(box)) > 1:
                raise PlanError(f"{name}: the sources' boxes overlap at {_show(box)}")
    return holders


def _wanted(
    receivers: Sequence[Sequence[Piece]], holders: Mapping[str, _Holders], itemsizes: Mapping[str, int]
) -> Iterator[_Wanted]:
    # Engines of one layout ask for the same boxes again and again.
    known: dict[tuple[str, Box], list[tuple[Box, Mapping[int, Piece]]]] = {}
    for receiver, pieces in enumerate(receivers):
        for piece in pieces:
            key = (piece.name, piece.box)
            if key not in known:
                known[key] = _covering(piece, holders, receiver)
            for box, replicas in known[key]:
                num_bytes = volume(box) * itemsizes[piece.name]
                yield _Wanted(receiver, piece, box, replicas, num_bytes)


def _covering(
    piece: Piece, holders: Mapping[str, _Holders], receiver: int
) -> list[tuple[Box, Mapping[int, Piece]]]:
    overlaps = holders[piece.name].overlaps(piece.box) if piece.name in holders else []
    covered, wanted = sum(volume(box) for box, _ in overlaps), volume(piece.box)
    if covered != wanted:
        raise PlanError(
            f"{piece.name}: receiver {receiver} holds {_show(piece.box)}, {wanted} elements, of which the "
            f"sources hold {covered}"
        )
    return overlaps


class _Load:
    """Bytes that each source and each pair has to move so far."""

    def __init__(self) -> None:
        self._sources: dict[int, int] = defaultdict(int)
        self._pairs: dict[tuple[int, int], int] = defaultdict(int)

    def add(self, move: _Wanted, *, tiny: bool) -> int:
        """Give `move` to the replica with the least to send, and return which one that is."""

        def cost(source: int) -> tuple[bool, int, int, int]:
            pair = (source, move.receiver)
            new = pair not in self._pairs
            return tiny and new, self._sources[source], 0 if new else self._pairs[pair], source

        source = min(move.replicas, key=cost)
        self._sources[source] += move.num_bytes
        self._pairs[source, move.receiver] += move.num_bytes
        return source


def _spread(moves: Sequence[_Wanted]) -> list[int]:
    """The source of each move, the largest moves being given away first."""
    received: dict[int, int] = defaultdict(int)
    for move in moves:
        received[move.receiver] += move.num_bytes
    load = _Load()
    chosen = [0] * len(moves)
    # Those without a choice come first of all, so that the others can make up for them.
    for i in sorted(range(len(moves)), key=lambda i: (len(moves[i].replicas) > 1, -moves[i].num_bytes)):
        chosen[i] = load.add(moves[i], tiny=moves[i].num_bytes < TINY_SHARE * received[moves[i].receiver])
    return chosen


def _check_boxes(side: Sequence[Sequence[Piece]], shapes: Mapping[str, tuple[int, ...]]) -> None:
    for piece in (piece for pieces in side for piece in pieces):
        if piece.name not in shapes:
            raise PlanError(f"{piece.name}: is not a tensor of the model")
        shape = shapes[piece.name]
        inside = len(piece.box) == len(shape) == len(piece.view.strides) and all(
            0 <= low <= high <= size for (low, high), size in zip(piece.box, shape, strict=True)
        )
        if not inside:
            raise PlanError(f"{piece.name}: {_show(piece.box)} is not a box of a tensor of shape {shape}")


def _show(box: Box) -> str:
    return "[" + ", ".join(f"{low}:{high}" for low, high in box) + "]"
