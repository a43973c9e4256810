"""Which source sends which part of which tensor to which receiver. Pure: no torch, nothing is moved here.

Sources are the trainer's ranks, receivers the workers of all engines. Every rank builds the plan from the
published layouts of all; equal digests say that all built the same one. Ranks of one layout share what the
plan says of them, and the moves themselves are made only for the rank that carries them out.
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
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


class Want(NamedTuple):
    """Part of what a receiver holds whose source is still open: `replicas` hold the same box."""

    piece: Piece
    box: Box
    replicas: Mapping[int, Piece]  # by source, in their order
    num_bytes: int

    def receiver_view(self) -> View:
        return self.piece.view.narrowed(self.piece.box, self.box)

    def source_view(self, source: int) -> View:
        held = self.replicas[source]
        return held.view.narrowed(held.box, self.box)


@dataclass(frozen=True, slots=True)
class Share:
    """The share of one receiver: `sources[i]` sends it `wants[i]`, which are those of all of its layout."""

    wants: tuple[Want, ...]
    sources: list[int]

    def moves(self, receiver: int, source: int | None) -> Iterator[Move]:
        """Those from `source`, or from all sources."""
        for want, chosen in zip(self.wants, self.sources, strict=True):
            if source is None or source == chosen:
                views = want.source_view(chosen), want.receiver_view()
                yield Move(chosen, receiver, want.piece.name, want.box, *views)


@dataclass(frozen=True)
class Plan:
    """The shares of all receivers; `itemsizes` are the bytes of an element on the wire, by tensor.

    A receiver that a relay goes to has an empty share.
    """

    shares: tuple[Share, ...]
    itemsizes: Mapping[str, int]
    relays: tuple[Relay, ...] = ()

    def moves(self, *, source: int | None = None, receiver: int | None = None) -> Iterator[Move]:
        """All moves, or those of one source or receiver, in the receivers' order."""
        receivers = range(len(self.shares)) if receiver is None else [receiver]
        return (move for index in receivers for move in self.shares[index].moves(index, source))

    def digest(self) -> str:
        """sha256 of the plan as text; whatever changes a byte on the wire or its place changes this."""
        sha = hashlib.sha256(json.dumps(sorted(self.itemsizes.items())).encode())
        known: dict[int, int] = {}  # wants that several receivers share are written once
        for share in self.shares:
            if id(share.wants) not in known:
                known[id(share.wants)] = len(known)
                sha.update("".join(_as_text(share.wants)).encode())
            sha.update(json.dumps([known[id(share.wants)], share.sources]).encode())
        sha.update(json.dumps([[relay.sender, relay.receiver] for relay in self.relays]).encode())
        return sha.hexdigest()

    def num_bytes(self, move: Move) -> int:
        return volume(move.box) * self.itemsizes[move.name]

    def first(self, receiver: int) -> int:
        """The receiver at which the chain of relays to `receiver` begins: itself where there is none."""
        return self._firsts.get(receiver, receiver)

    def bytes_sent(self, source: int) -> int:
        """Bytes that leave `source`, padding and trailers apart."""
        return self._sent[source]

    def bytes_received(self, receiver: int) -> int:
        """Bytes that arrive at `receiver`, from sources or through a relay, padding and trailers apart."""
        return sum(want.num_bytes for want in self.shares[self.first(receiver)].wants)

    @cached_property
    def _firsts(self) -> Mapping[int, int]:
        firsts: dict[int, int] = {}
        for relay in self.relays:  # each sender's own relay came before
            firsts[relay.receiver] = firsts.get(relay.sender, relay.sender)
        return firsts

    @cached_property
    def _sent(self) -> Mapping[int, int]:
        sent: dict[int, int] = defaultdict(int)
        for share in self.shares:
            for want, source in zip(share.wants, share.sources, strict=True):
                sent[source] += want.num_bytes
        return sent


class Demand:
    """The needs of the receivers and the holders of each, before a source is chosen for anything."""

    def __init__(
        self,
        sources: Sequence[Sequence[Piece]],
        receivers: Sequence[Sequence[Piece]],
        *,
        shapes: Mapping[str, tuple[int, ...]],
        itemsizes: Mapping[str, int],
    ) -> None:
        """Arguments and errors as of `build_plan`."""
        for side in (sources, receivers):
            _check_boxes(_distinct(side), shapes)
        self._itemsizes = itemsizes
        self.chains = chains(receivers)
        self.wants: list[tuple[Want, ...]] = [()] * len(receivers)
        holders = _holders(sources)
        known: dict[tuple[str, Box], list[tuple[Box, Mapping[int, Piece]]]] = {}
        for chain in self.chains:
            wants = tuple(_wanted(chain[0], receivers[chain[0]], holders, itemsizes, known))
            for receiver in chain:
                self.wants[receiver] = wants

    def plan(self) -> Plan:
        """Let every receiver be sent to."""
        return Plan(tuple(_spread(self.wants)), self._itemsizes)

    def relayed_plan(self) -> Plan:
        """Let the first receiver of each chain be sent to, and pass everything on."""
        wants: list[tuple[Want, ...]] = [()] * len(self.wants)
        for chain in self.chains:
            wants[chain[0]] = self.wants[chain[0]]
        relays = tuple(Relay(*pair) for chain in self.chains for pair in pairwise(chain))
        return Plan(tuple(_spread(wants)), self._itemsizes, relays)

    def max_received(self) -> int:
        """Bytes that the busiest receiver gets."""
        firsts = (self.wants[chain[0]] for chain in self.chains)
        return max((sum(want.num_bytes for want in wants) for wants in firsts), default=0)

    def least_sent(self) -> int:
        """A lower bound on the bytes that the busiest source sends without relays: replicas share evenly."""
        held: dict[tuple[int, ...], int] = defaultdict(int)
        for chain in self.chains:
            for want in self.wants[chain[0]]:
                held[tuple(want.replicas)] += want.num_bytes * len(chain)
        return max((-(-total // len(replicas)) for replicas, total in held.items()), default=0)

    def most_sent(self) -> int:
        """An upper bound on the bytes that the busiest source sends without relays.

        A part goes to the replica with the least to send, so that whichever gets it had at most the mean of
        all that can go to them. What is tiny may go to any replica, whatever that has to send.
        """
        totals: dict[tuple[int, ...], int] = defaultdict(int)
        largest: dict[tuple[int, ...], int] = defaultdict(int)  # of what goes to the least loaded
        anyway: dict[int, int] = defaultdict(int)  # by source: what may come to it whatever it has to send
        for chain in self.chains:
            wants = self.wants[chain[0]]
            limit = TINY_SHARE * sum(want.num_bytes for want in wants)
            for want in wants:
                replicas = tuple(want.replicas)
                totals[replicas] += want.num_bytes * len(chain)
                if len(replicas) > 1 and want.num_bytes >= limit:
                    largest[replicas] = max(largest[replicas], want.num_bytes)
                    continue
                for source in replicas:
                    anyway[source] += want.num_bytes * len(chain)
        members = {replicas: set(replicas) for replicas in totals}
        bounds = [*anyway.values()]
        for replicas, size in largest.items():
            near = sum(total for key, total in totals.items() if not members[key].isdisjoint(replicas))
            bounds.append(-(-near // len(replicas)) + size + max(anyway[source] for source in replicas))
        return max(bounds, default=0)


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
    return Demand(sources, receivers, shapes=shapes, itemsizes=itemsizes).plan()


def chains(receivers: Sequence[Sequence[Piece]]) -> list[list[int]]:
    """Receivers grouped by layout, in their order: equal pieces in equal windows are equal bytes."""
    alike: dict[tuple[Piece, ...], list[int]] = defaultdict(list)
    known: dict[int, list[int]] = {}  # ranks that share one list need not be compared
    for receiver, pieces in enumerate(receivers):
        if id(pieces) not in known:
            known[id(pieces)] = alike[tuple(pieces)]
        known[id(pieces)].append(receiver)
    return list(alike.values())


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

    def near(self, box: Box) -> list[Box]:
        """Those that share elements with `box`, and some that may not."""
        low, high = self._interval(box)
        return self._boxes[bisect_right(self._highs, low) : bisect_left(self._lows, high)]

    def overlaps(self, box: Box) -> list[tuple[Box, Mapping[int, Piece]]]:
        """What sources hold of `box`: the common part and, by source, the piece that it is part of."""
        near = self.near(box)
        common = ((box if held == box else intersection(held, box), self._replicas[held]) for held in near)
        return [(part, replicas) for part, replicas in common if part is not None]  # a scalar's box is empty

    def _interval(self, box: Box) -> tuple[int, int]:
        return box[self._axis] if box else (0, 1)


def _holders(sources: Sequence[Sequence[Piece]]) -> dict[str, _Holders]:
    replicas: dict[str, dict[Box, dict[int, Piece]]] = defaultdict(lambda: defaultdict(dict))
    # Sorted, because a rank may hold a box twice and the choice must not depend on its order.
    ordered = {
        id(pieces): sorted(
            (piece for piece in pieces if volume(piece.box)),
            key=lambda p: (p.name, p.box, p.view.tensor, p.view.offset),
        )
        for pieces in _distinct(sources)
    }
    for source, pieces in enumerate(sources):
        for piece in ordered[id(pieces)]:
            replicas[piece.name][piece.box].setdefault(source, piece)
    holders = {name: _Holders(boxes) for name, boxes in replicas.items()}
    for name, boxes in holders.items():
        for box in boxes:
            if len(boxes.near(box)) > 1 and len(boxes.overlaps(box)) > 1:
                raise PlanError(f"{name}: the sources' boxes overlap at {_show(box)}")
    return holders


def _wanted(
    receiver: int,
    pieces: Sequence[Piece],
    holders: Mapping[str, _Holders],
    itemsizes: Mapping[str, int],
    known: dict[tuple[str, Box], list[tuple[Box, Mapping[int, Piece]]]],
) -> Iterator[Want]:
    """known: who holds a box, of those that came before: workers of one engine need many of the same."""
    for piece in pieces:
        key = (piece.name, piece.box)
        if key not in known:
            known[key] = _covering(piece, holders, receiver)
        for box, replicas in known[key]:
            yield Want(piece, box, replicas, volume(box) * itemsizes[piece.name])


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

    def __init__(self, num_receivers: int) -> None:
        self._sources: dict[int, int] = defaultdict(int)
        self._pairs: list[dict[int, int]] = [{} for _ in range(num_receivers)]  # by receiver, then source

    def add(self, receiver: int, source: int, num_bytes: int) -> None:
        pairs = self._pairs[receiver]
        self._sources[source] += num_bytes
        pairs[source] = pairs.get(source, 0) + num_bytes

    def choose(self, receiver: int, replicas: Iterable[int], *, tiny: bool) -> int:
        """The replica with the least to send; among equal ones, with the least for `receiver`."""
        pairs = self._pairs[receiver]
        if tiny:
            replicas = [source for source in replicas if source in pairs] or replicas
        load_of = self._sources.__getitem__
        least = min(map(load_of, replicas))
        tied = [source for source in replicas if load_of(source) == least]
        return tied[0] if len(tied) == 1 else min((pairs.get(source, 0), source) for source in tied)[1]


def _spread(wanted: Sequence[tuple[Want, ...]]) -> list[Share]:
    """Choose the source of everything that each receiver wants, the largest parts being given away first."""
    load = _Load(len(wanted))
    open_parts: list[tuple[int, int, int]] = []  # size, negative; receiver; index among what that wants
    shares: list[Share] = []
    known: dict[int, Share] = {}  # where nothing is to be chosen, one share serves all receivers of a layout
    for receiver, wants in enumerate(wanted):
        if (share := known.get(id(wants))) is None:
            share = Share(wants, [next(iter(want.replicas)) for want in wants])
            known[id(wants)] = share
        # Those without a choice come first of all, so that the others can make up for them.
        is_open = False
        for index, (want, source) in enumerate(zip(wants, share.sources, strict=True)):
            if len(want.replicas) > 1:
                open_parts.append((-want.num_bytes, receiver, index))
                is_open = True
            else:
                load.add(receiver, source, want.num_bytes)
        shares.append(Share(wants, list(share.sources)) if is_open else share)
    limits = {id(wants): TINY_SHARE * sum(want.num_bytes for want in wants) for wants in wanted}
    for _, receiver, index in sorted(open_parts):
        share = shares[receiver]
        want = share.wants[index]
        tiny = want.num_bytes < limits[id(share.wants)]
        share.sources[index] = source = load.choose(receiver, want.replicas, tiny=tiny)
        load.add(receiver, source, want.num_bytes)
    return shares


def _distinct(side: Sequence[Sequence[Piece]]) -> list[Sequence[Piece]]:
    """Each list of pieces once: ranks of one layout may share theirs."""
    return list({id(pieces): pieces for pieces in side}.values())


def _as_text(wants: Sequence[Want]) -> Iterator[str]:
    """Everything that a move of them may be."""
    for want in wants:
        views = [want.receiver_view(), *map(want.source_view, want.replicas)]
        places = [(view.tensor, view.offset, view.strides) for view in views]
        yield repr((want.piece.name, want.box, *want.replicas, *places))


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
