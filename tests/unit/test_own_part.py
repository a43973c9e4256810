"""The part that each member plans alone is what a plan of everything, made in the plainest way, gives it."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st

from rlstack.transfer.layout import Box, Piece, View, intersection, volume
from rlstack.transfer.move_buckets import Bucket, Delivery, deliveries, plan_buckets
from rlstack.transfer.negotiation import Member
from rlstack.transfer.plan import TINY_SHARE, Move, Plan, Relay, Want, build_plan, chains
from rlstack.transfer.relay import build_relayed_plan, needs_relay
from tests.unit.test_plan import Layout, layouts

Shapes = Mapping[str, tuple[int, ...]]
ITEMSIZE = 2


@dataclass(frozen=True)
class Candidate:
    receiver: int
    piece: Piece
    box: Box
    replicas: Mapping[int, Piece]

    @property
    def num_bytes(self) -> int:
        return ITEMSIZE * volume(self.box)


def reference_moves(sources: Layout, receivers: Layout) -> list[Move]:
    """All moves of a plan, every receiver's boxes being held against every source's."""
    candidates = [
        Candidate(receiver, piece, box, replicas)
        for receiver, pieces in enumerate(receivers)
        for piece in pieces
        for box, replicas in held_of(piece, sources)
    ]
    received: dict[int, int] = defaultdict(int)
    for candidate in candidates:
        received[candidate.receiver] += candidate.num_bytes
    loads: dict[int, int] = defaultdict(int)
    pairs: dict[tuple[int, int], int] = {}
    moves: dict[int, Move] = {}
    order = sorted(
        range(len(candidates)),
        key=lambda i: (len(candidates[i].replicas) > 1, -candidates[i].num_bytes),
    )
    for i in order:
        taken = candidates[i]
        tiny = taken.num_bytes < TINY_SHARE * received[taken.receiver]
        _, _, _, source = min(
            (
                tiny and (source, taken.receiver) not in pairs,
                loads[source],
                pairs.get((source, taken.receiver), 0),
                source,
            )
            for source in taken.replicas
        )
        loads[source] += taken.num_bytes
        pairs[source, taken.receiver] = pairs.get((source, taken.receiver), 0) + taken.num_bytes
        held = taken.replicas[source]
        views = (
            held.view.narrowed(held.box, taken.box),
            taken.piece.view.narrowed(taken.piece.box, taken.box),
        )
        moves[i] = Move(source, taken.receiver, taken.piece.name, taken.box, *views)
    return [moves[i] for i in range(len(candidates))]


def held_of(piece: Piece, sources: Layout) -> list[tuple[Box, dict[int, Piece]]]:
    """What sources hold of `piece`, in the order of a plan: the common boxes, and who holds them."""
    holders: dict[Box, dict[int, Piece]] = defaultdict(dict)
    for source, pieces in enumerate(sources):
        for held in sorted(pieces, key=lambda p: (p.name, p.box, p.view.tensor, p.view.offset)):
            if held.name == piece.name and volume(held.box):
                holders[held.box].setdefault(source, held)
    axes = range(len(piece.box))
    axis = max(axes, key=lambda axis: len({box[axis] for box in holders}), default=0)
    common = [
        (intersection(box, piece.box), holders[box]) for box in sorted(holders, key=lambda b: (b[axis], b))
    ]
    return [(box, replicas) for box, replicas in common if box is not None]


def reference_plan(
    sources: Layout, receivers: Layout, bucket_bytes: int
) -> tuple[list[Move], tuple[Relay, ...]]:
    direct = reference_moves(sources, receivers)
    alike = chains(receivers)
    relays = tuple(Relay(*pair) for chain in alike for pair in pairwise(chain))
    relayed = {relay.receiver for relay in relays}
    firsts: Layout = [[] if i in relayed else pieces for i, pieces in enumerate(receivers)]
    to_firsts = reference_moves(sources, firsts)
    worth_it = needs_relay(
        sent_directly=busiest(direct, "source"),
        sent_to_first=busiest(to_firsts, "source"),
        received=busiest(direct, "receiver"),
        num_hops=max(map(len, alike)) - 1,
        bucket_bytes=bucket_bytes,
    )
    return (to_firsts, relays) if relays and worth_it else (direct, ())


def busiest(moves: Sequence[Move], side: str) -> int:
    num_bytes: dict[int, int] = defaultdict(int)
    for move in moves:
        num_bytes[getattr(move, side)] += ITEMSIZE * volume(move.box)
    return max(num_bytes.values(), default=0)


@st.composite
def problems(draw: st.DrawFn) -> tuple[Layout, Layout, Shapes]:
    """Engines of one or two layouts, some of them several times; replicas among the sources, some in full."""
    sizes = st.lists(st.integers(1, 7), min_size=1, max_size=2).map(tuple)
    shapes = {f"t{i}": size for i, size in enumerate(draw(st.lists(sizes, min_size=1, max_size=3)))}
    sources = draw(layouts(shapes, replicated=True)) * draw(st.integers(1, 2))
    engines = [
        draw(layouts(shapes, replicated=False)) * draw(st.integers(1, 4))
        for _ in range(draw(st.integers(1, 2)))
    ]
    return sources, list(itertools.chain.from_iterable(engines)), shapes


Way = tuple[Bucket, int, int]


def ways(of: Sequence[Delivery]) -> list[Way]:
    return [(way.bucket, way.sender, way.receiver) for way in of]


def own_parts(plan: Plan, num_sources: int, num_receivers: int, bucket_bytes: int) -> list[list[Delivery]]:
    members = [Member(rank, num_sources, num_receivers) for rank in range(num_sources + num_receivers)]
    return [member.deliveries(plan, bucket_bytes=bucket_bytes) for member in members]


@settings(max_examples=100, deadline=None)
@given(problems(), st.sampled_from([2, 8, 64]))
def test_own_parts_are_those_of_the_plainest_plan(
    problem: tuple[Layout, Layout, Shapes], bucket_bytes: int
) -> None:
    sources, receivers, shapes = problem
    itemsizes = dict.fromkeys(shapes, ITEMSIZE)
    plan = build_relayed_plan(
        sources, receivers, shapes=shapes, itemsizes=itemsizes, bucket_bytes=bucket_bytes
    )
    moves, relays = reference_plan(sources, receivers, bucket_bytes)
    assert list(plan.moves()) == moves
    assert plan.relays == relays
    everything = list(
        deliveries(plan_buckets(plan, bucket_bytes=bucket_bytes), relays, num_sources=len(sources))
    )
    assert [move for way in everything if way.sender < len(sources) for move in way.bucket.moves]
    parts = own_parts(plan, len(sources), len(receivers), bucket_bytes)
    for rank, part in enumerate(parts):
        assert ways(part) == [way for way in ways(everything) if rank in way[1:]]
    # Between two members both have the same, in the same order, and each of it has a tag of its own.
    for way in everything:
        between = [
            [(w.bucket, w.tag) for w in parts[rank] if (w.sender, w.receiver) == (way.sender, way.receiver)]
            for rank in (way.sender, way.receiver)
        ]
        assert between[0] == between[1]
        assert len({tag for _, tag in between[0]}) == len(between[0])


def test_a_member_makes_no_moves_of_others() -> None:
    halves = [Piece("w", ((low, low + 4),), View("w", low, (1,))) for low in (0, 4)]
    plan = build_plan(
        [[half] for half in halves], [halves] * 40, shapes={"w": (8,)}, itemsizes={"w": ITEMSIZE}
    )
    with mock.patch.object(Want, "receiver_view", autospec=True, side_effect=Want.receiver_view) as made:
        Member(2, 2, 40).deliveries(plan, bucket_bytes=64)
        assert made.call_count == 2
        Member(0, 2, 40).deliveries(plan, bucket_bytes=64)
        assert made.call_count == 2 + 40
