from collections import defaultdict

from hypothesis import given, settings
from hypothesis import strategies as st

from rlstack.transfer.layout import Box, Piece, View, intersection, volume
from rlstack.transfer.move_buckets import ALIGNMENT_BYTES, Bucket, plan_buckets
from rlstack.transfer.plan import Move, Plan, build_plan

sizes = st.lists(st.integers(1, 9), min_size=0, max_size=3).map(tuple)


def strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(volume(tuple((0, n) for n in shape[axis + 1 :])) for axis in range(len(shape)))


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    shapes = {f"t{i}": shape for i, shape in enumerate(draw(st.lists(sizes, min_size=1, max_size=5)))}
    itemsizes = {name: draw(st.sampled_from([1, 2, 4, 8])) for name in shapes}
    whole = [Piece(n, tuple((0, x) for x in s), View(n, 0, strides(s))) for n, s in shapes.items()]
    sources = [whole] * draw(st.integers(1, 3))
    receivers = [whole] * draw(st.integers(1, 3))
    return build_plan(sources, receivers, shapes=shapes, itemsizes=itemsizes)


def moves_by_origin(buckets: list[Bucket]) -> dict[tuple[int, int, str], list[Move]]:
    found: dict[tuple[int, int, str], list[Move]] = defaultdict(list)
    for bucket in buckets:
        for move in bucket.moves:
            assert (move.source, move.receiver) == (bucket.source, bucket.receiver)
            found[move.source, move.receiver, move.name].append(move)
    return found


def overlap(boxes: list[Box]) -> bool:
    return any(intersection(a, b) is not None for i, a in enumerate(boxes) for b in boxes[:i])


@settings(max_examples=200, deadline=None)
@given(plans(), st.integers(8, 300))
def test_buckets_hold_every_element_of_the_plan_once(plan: Plan, bucket_bytes: int) -> None:
    found = moves_by_origin(plan_buckets(plan, bucket_bytes=bucket_bytes))
    assert found.keys() == {(move.source, move.receiver, move.name) for move in plan.moves()}
    for move in plan.moves():
        parts = found[move.source, move.receiver, move.name]
        assert sum(volume(part.box) for part in parts) == volume(move.box)
        assert not overlap([part.box for part in parts])
        assert all(part == move.narrowed(part.box) for part in parts)


@settings(max_examples=200, deadline=None)
@given(plans(), st.integers(8, 300))
def test_moves_keep_apart_within_a_bucket_of_limited_size(plan: Plan, bucket_bytes: int) -> None:
    for bucket in plan_buckets(plan, bucket_bytes=bucket_bytes):
        assert bucket.num_bytes <= bucket_bytes
        ends = [o + plan.num_bytes(m) for o, m in zip(bucket.offsets, bucket.moves, strict=True)]
        assert bucket.offsets[0] == 0
        assert all(offset % ALIGNMENT_BYTES == 0 for offset in bucket.offsets)
        assert all(end <= start for end, start in zip(ends, bucket.offsets[1:], strict=False))
        assert ends[-1] == bucket.num_bytes


@settings(max_examples=100, deadline=None)
@given(plans(), st.integers(8, 300))
def test_a_pair_s_buckets_are_numbered_in_their_order(plan: Plan, bucket_bytes: int) -> None:
    numbers: dict[tuple[int, int], list[int]] = defaultdict(list)
    for bucket in plan_buckets(plan, bucket_bytes=bucket_bytes):
        numbers[bucket.source, bucket.receiver].append(bucket.index)
    assert all(indices == list(range(len(indices))) for indices in numbers.values())


def test_large_moves_are_cut_into_whole_rows() -> None:
    whole = Piece("w", ((0, 10), (0, 8)), View("w", 0, (8, 1)))
    plan = build_plan([[whole]], [[whole]], shapes={"w": (10, 8)}, itemsizes={"w": 2})
    buckets = plan_buckets(plan, bucket_bytes=70)
    assert [move.box[0] for bucket in buckets for move in bucket.moves] == [(0, 4), (4, 8), (8, 10)]
    assert buckets[1].moves[0].source_view.offset == 32


def test_sources_start_with_different_receivers() -> None:
    halves = [[Piece("w", ((i, i + 1), (0, 8)), View("w", 0, (8, 1)))] for i in range(2)]
    whole = [Piece("w", ((0, 2), (0, 8)), View("w", 0, (8, 1)))]
    plan = build_plan(halves, [whole, whole], shapes={"w": (2, 8)}, itemsizes={"w": 2})
    buckets = plan_buckets(plan, bucket_bytes=64)
    assert [(bucket.source, bucket.receiver) for bucket in buckets] == [(0, 0), (1, 1), (0, 1), (1, 0)]
