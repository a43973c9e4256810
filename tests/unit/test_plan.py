import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlstack.transfer.layout import Box, Piece, View, decode, encode, shape
from rlstack.transfer.plan import Plan, PlanError, build_plan
from rlstack.transfer.relay import build_relayed_plan

Layout = list[list[Piece]]
Problem = tuple[Layout, Layout, dict[str, tuple[int, ...]]]
Storage = list[dict[str, np.ndarray]]  # by rank and name of the rank's tensor


def window(storage: Mapping[str, np.ndarray], view: View, box: Box) -> np.ndarray:
    flat = storage[view.tensor]
    strides = [stride * flat.itemsize for stride in view.strides]
    return np.lib.stride_tricks.as_strided(flat[view.offset :], shape(box), strides)


def tensors(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Every element of every tensor differs from every other."""
    count = itertools.count(1.0)
    return {
        name: np.array([next(count) for _ in range(int(np.prod(s)))]).reshape(s) for name, s in shapes.items()
    }


def filled(layout: Sequence[Sequence[Piece]], whole: Mapping[str, np.ndarray] | None) -> Storage:
    """Storage of every rank, with its pieces of `whole` or with zeros; pieces' tensors have a margin."""
    ranks: Storage = []
    for pieces in layout:
        storage: dict[str, np.ndarray] = {}
        for piece in pieces:
            end = piece.view.offset + sum(
                (n - 1) * s for n, s in zip(shape(piece.box), piece.view.strides, strict=True)
            )
            have = storage.get(piece.view.tensor, np.zeros(0))
            storage[piece.view.tensor] = np.concatenate([have, np.zeros(max(0, end + 1 - len(have)))])
        if whole is not None:
            for piece in pieces:
                cut = tuple(slice(low, high) for low, high in piece.box)
                window(storage, piece.view, piece.box)[...] = whole[piece.name][cut]
        ranks.append(storage)
    return ranks


def execute(plan: Plan, sources: Storage, receivers: Storage) -> None:
    for move in plan.moves():
        data = window(sources[move.source], move.source_view, move.box)
        window(receivers[move.receiver], move.receiver_view, move.box)[...] += data
    for relay in plan.relays:
        receivers[relay.receiver] = {name: data.copy() for name, data in receivers[relay.sender].items()}


@st.composite
def tilings(draw: st.DrawFn, sizes: tuple[int, ...]) -> list[Box]:
    """Boxes that cover a tensor: halves of halves, each cut where it likes."""
    boxes: list[Box] = [tuple((0, size) for size in sizes)]
    for _ in range(draw(st.integers(0, 4))):
        box = boxes.pop(draw(st.integers(0, len(boxes) - 1)))
        axis = draw(st.integers(0, len(box) - 1))
        low, high = box[axis]
        at = draw(st.integers(low, high))
        parts = [
            (*box[:axis], part, *box[axis + 1 :]) for part in ((low, at), (at, high)) if part[0] < part[1]
        ]
        boxes += parts
    return boxes


@st.composite
def layouts(draw: st.DrawFn, shapes: Mapping[str, tuple[int, ...]], *, replicated: bool) -> Layout:
    """A few ranks that hold all of `shapes`, once or more often, in tensors of any order and with gaps."""
    ranks: Layout = [[] for _ in range(draw(st.integers(1, 4)))]
    for name, sizes in shapes.items():
        for box in draw(tilings(sizes)):
            num_owners = len(ranks) if replicated else 1
            for owner in draw(st.sets(st.sampled_from(range(len(ranks))), min_size=1, max_size=num_owners)):
                ranks[owner].append(Piece(name, box, draw(views(f"w{len(ranks[owner])}", box))))
    return ranks


@st.composite
def views(draw: st.DrawFn, tensor: str, box: Box) -> View:
    gap = draw(st.integers(1, 2))
    order = draw(st.permutations(range(len(box))))
    strides = [0] * len(box)
    step = gap
    for axis in order:
        strides[axis] = step
        step *= shape(box)[axis]
    return View(tensor, draw(st.integers(0, 3)), tuple(strides))


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    sizes = st.lists(st.integers(1, 7), min_size=1, max_size=3).map(tuple)
    shapes = {f"t{i}": s for i, s in enumerate(draw(st.lists(sizes, min_size=1, max_size=3)))}
    # Sources hold equal boxes or disjoint ones; receivers whatever they like.
    sources = draw(layouts(shapes, replicated=True))
    receivers = [
        piece for _ in range(draw(st.integers(1, 3))) for piece in draw(layouts(shapes, replicated=False))
    ]
    return sources, receivers, shapes


def plan_of(sources: Layout, receivers: Layout, shapes: Mapping[str, tuple[int, ...]]) -> Plan:
    return build_plan(sources, receivers, shapes=shapes, itemsizes=dict.fromkeys(shapes, 2))


@settings(max_examples=300, deadline=None)
@given(problems())
def test_a_plan_writes_every_element_once(problem: Problem) -> None:
    sources, receivers, shapes = problem
    plan = plan_of(sources, receivers, shapes)
    whole = tensors(shapes)
    arrived = filled(receivers, None)
    execute(plan, filled(sources, whole), arrived)
    for rank, expected in zip(arrived, filled(receivers, whole), strict=True):
        assert rank.keys() == expected.keys()
        assert all(np.array_equal(rank[name], expected[name]) for name in rank)
    for receiver, pieces in enumerate(receivers):
        assert plan.bytes_received(receiver) == sum(2 * np.prod(shape(piece.box)) for piece in pieces)
    assert sum(map(plan.bytes_sent, range(len(sources)))) == sum(
        map(plan.bytes_received, range(len(receivers)))
    )


@settings(max_examples=100, deadline=None)
@given(problems(), st.integers(1, 64))
def test_relays_give_every_engine_the_same_bytes(problem: Problem, bucket_bytes: int) -> None:
    sources, engine, shapes = problem
    engines = engine * 3
    itemsizes = dict.fromkeys(shapes, 2)
    plan = build_relayed_plan(sources, engines, shapes=shapes, itemsizes=itemsizes, bucket_bytes=bucket_bytes)
    whole = tensors(shapes)
    arrived = filled(engines, None)
    execute(plan, filled(sources, whole), arrived)
    for rank, expected in zip(arrived, filled(engines, whole), strict=True):
        assert all(np.array_equal(rank[name], expected[name]) for name in expected)


@settings(max_examples=100, deadline=None)
@given(problems(), st.randoms(use_true_random=False))
def test_a_box_without_any_source_is_refused(problem: Problem, random: Random) -> None:
    sources, receivers, shapes = problem
    lost = random.choice([(piece.name, piece.box) for pieces in sources for piece in pieces])
    kept = [[piece for piece in pieces if (piece.name, piece.box) != lost] for pieces in sources]
    with pytest.raises(PlanError, match=rf"{lost[0]}: receiver \d+ holds .* elements, of which the sources"):
        plan_of(kept, receivers, shapes)


@settings(max_examples=100, deadline=None)
@given(problems(), st.randoms(use_true_random=False))
def test_an_element_in_two_boxes_is_refused(problem: Problem, random: Random) -> None:
    sources, receivers, shapes = problem
    piece = random.choice([piece for pieces in sources for piece in pieces])
    element = tuple((low, low + 1) for low, _ in piece.box)
    if element == piece.box:
        return
    random.choice(sources).append(Piece(piece.name, element, View("extra", 0, piece.view.strides)))
    with pytest.raises(PlanError, match=f"{piece.name}: the sources' boxes overlap"):
        plan_of(sources, receivers, shapes)


@settings(max_examples=100, deadline=None)
@given(problems(), st.randoms(use_true_random=False))
def test_the_order_of_a_source_s_pieces_does_not_change_the_plan(problem: Problem, random: Random) -> None:
    sources, receivers, shapes = problem
    # What a rank holds twice is no exception.
    sources[0] += [replace(piece, view=replace(piece.view, tensor="twin")) for piece in sources[0]]
    digest = plan_of(sources, receivers, shapes).digest()
    for pieces in sources:
        random.shuffle(pieces)
    assert plan_of(sources, receivers, shapes).digest() == digest


def rows(num_ranks: int, *, name: str = "w", size: int = 12, columns: int = 8) -> Layout:
    height = size // num_ranks
    view = View(name, 0, (columns, 1))
    return [[Piece(name, ((i * height, (i + 1) * height), (0, columns)), view)] for i in range(num_ranks)]


SHAPES = {"w": (12, 8)}


def test_whatever_changes_the_bytes_changes_the_digest() -> None:
    sources, receivers = rows(3), rows(2)
    (first,), *others = receivers
    moved = [[replace(first, view=View("w", 8, (8, 1)))], *others]
    renamed = [[replace(first, view=View("v", 0, (8, 1)))], *others]
    plans = [
        plan_of(sources, receivers, SHAPES),
        plan_of(sources, moved, SHAPES),
        plan_of(sources, renamed, SHAPES),
        plan_of(sources, receivers[::-1], SHAPES),
        plan_of(sources[::-1], receivers, SHAPES),
        build_plan(sources, receivers, shapes=SHAPES, itemsizes={"w": 4}),
    ]
    assert len({plan.digest() for plan in plans}) == len(plans)


def test_replicas_share_the_sending() -> None:
    plan = plan_of(rows(2) * 3, rows(1) * 3, SHAPES)
    assert {plan.bytes_sent(source) for source in range(6)} == {96}


def test_replicas_make_up_for_what_only_one_source_has() -> None:
    shapes = {"w": (12, 8), "v": (6, 8)}
    (only,), (both,) = rows(1, name="v", size=6)[0], rows(1)[0]
    plan = plan_of([[both, only], [both]], [[both, only]], shapes)
    assert [(move.name, move.source) for move in plan.moves()] == [("w", 1), ("v", 0)]


def test_tiny_tensors_make_no_new_pairs() -> None:
    shapes = {"w": (40000, 8)} | {f"norm{i}": (1,) for i in range(20)}
    norms = [Piece(name, ((0, 1),), View(name, 0, (1,))) for name in list(shapes)[1:]]
    sources = [[*pieces, *norms] for pieces in rows(4, size=40000)]
    receivers = [[*pieces, *norms] for pieces in rows(4, size=40000)]
    plan = plan_of(sources, receivers, shapes)
    assert {(move.source, move.receiver) for move in plan.moves()} == {(i, i) for i in range(4)}


@pytest.mark.parametrize(
    ("piece", "message"),
    [
        (Piece("v", ((0, 12), (0, 8)), View("w", 0, (8, 1))), "v: is not a tensor of the model"),
        (Piece("w", ((0, 13), (0, 8)), View("w", 0, (8, 1))), r"w: \[0:13, 0:8\] is not a box"),
        (Piece("w", ((0, 12),), View("w", 0, (1,))), r"w: \[0:12\] is not a box"),
        (Piece("w", ((0, 12), (0, 8)), View("w", 0, (1,))), "is not a box"),
    ],
)
def test_pieces_of_other_models_are_refused(piece: Piece, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        plan_of(rows(3), [[piece]], SHAPES)
    with pytest.raises(PlanError, match=message):
        plan_of([*rows(3), [piece]], rows(1), SHAPES)


def test_scalars_and_empty_shares_are_planned() -> None:
    scale = Piece("scale", (), View("scale", 0, ()))
    nothing = Piece("w", ((12, 12), (0, 8)), View("w", 0, (8, 1)))
    plan = plan_of([[*rows(1)[0], scale, nothing]], [[scale], [nothing]], {**SHAPES, "scale": ()})
    assert [(move.name, move.receiver) for move in plan.moves()] == [("scale", 0)]


@settings(deadline=None)
@given(problems())
def test_layouts_survive_json(problem: Problem) -> None:
    for pieces in problem[0]:
        assert decode(encode(pieces)) == pieces
