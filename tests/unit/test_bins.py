from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlstack.data import bins as bins_module
from rlstack.data.bins import Bins, Item, fill_bins

CAPACITY = 100

small_items = st.lists(
    st.builds(Item, tokens=st.integers(1, CAPACITY // 2), cost=st.floats(0.5, 1000)), max_size=40
)
items = st.lists(st.builds(Item, tokens=st.integers(1, 2 * CAPACITY), cost=st.floats(0.5, 1000)), max_size=40)
layouts = {"num_ranks": st.integers(1, 5), "multiple": st.integers(1, 4)}


def sums(bins: Bins, values: list[float]) -> list[float]:
    """Of each rank."""
    return [sum(values[index] for contents in of_rank for index in contents) for of_rank in bins]


@given(items=items, **layouts)
def test_each_item_is_in_one_bin_which_holds_it(items: list[Item], num_ranks: int, multiple: int) -> None:
    bins = fill_bins(items, num_ranks=num_ranks, capacity=CAPACITY, multiple=multiple)
    assert len(bins) == num_ranks
    assert len({len(of_rank) for of_rank in bins}) == 1
    assert len(bins[0]) > 0 and len(bins[0]) % multiple == 0
    contents = [contents for of_rank in bins for contents in of_rank]
    assert sorted(index for content in contents for index in content) == list(range(len(items)))
    for content in contents:
        assert content == sorted(content)
        assert sum(items[index].tokens for index in content) <= CAPACITY or len(content) == 1


@given(items=small_items, **layouts)
def test_bins_are_few(items: list[Item], num_ranks: int, multiple: int) -> None:
    """An item that found no room left every bin more than half full."""
    bins = fill_bins(items, num_ranks=num_ranks, capacity=CAPACITY, multiple=multiple)
    num_too_few = (len(bins[0]) - multiple) * num_ranks
    assert num_too_few * CAPACITY / 2 <= sum(item.tokens for item in items)


@given(items=items, **layouts)
def test_ranks_differ_by_no_more_than_an_item_where_there_is_room(
    items: list[Item], num_ranks: int, multiple: int
) -> None:
    room = 2 * CAPACITY * len(items) + 1
    bins = fill_bins(items, num_ranks=num_ranks, capacity=room, multiple=multiple)
    assert len(bins[0]) == multiple
    costs = sums(bins, [item.cost for item in items])
    assert max(costs) - min(costs) <= max((item.cost for item in items), default=0) + 1e-6
    for of_rank in bins:
        of_bins = sums([[contents] for contents in of_rank], [item.cost for item in items])
        dearest = max((items[index].cost for contents in of_rank for index in contents), default=0)
        assert max(of_bins) - min(of_bins) <= dearest + 1e-6


@given(items=items, **layouts)
def test_the_unit_of_costs_does_not_matter(items: list[Item], num_ranks: int, multiple: int) -> None:
    scaled = [item._replace(cost=1024 * item.cost) for item in items]
    one, other = (
        fill_bins(same, num_ranks=num_ranks, capacity=CAPACITY, multiple=multiple) for same in (items, scaled)
    )
    assert one == other


def test_costs_are_balanced_and_not_tokens() -> None:
    """One long sequence costs as much as four short ones, which have twice its tokens."""
    long, short = Item(tokens=40, cost=400), Item(tokens=20, cost=100)
    bins = fill_bins([short, short, long, short, short], num_ranks=2, capacity=100, multiple=1)
    assert bins == [[[2]], [[0, 1, 3, 4]]]


def test_bins_are_filled_tightly_where_that_saves_one() -> None:
    """Balanced, the two of 50 are apart, and the last of 33 finds no room."""
    items = [Item(tokens, float(tokens)) for tokens in (50, 33, 34, 50, 33)]
    assert fill_bins(items, num_ranks=1, capacity=100, multiple=1) == [[[0, 3], [1, 2, 4]]]


def one_by_one(items: list[Item], num_ranks: int, capacity: int, multiple: int) -> Bins:
    """As fill_bins, slowly: every number of bins from the tokens' bound on, and all bins for each item."""
    tokens = sum(min(item.tokens, capacity) for item in items)
    num_units = max(1, math.ceil(tokens / (capacity * num_ranks * multiple)))
    while True:
        for tight in (False, True):
            if (bins := placed(items, num_ranks, num_units * multiple, capacity, tight)) is not None:
                return bins
        num_units += 1


def placed(items: list[Item], num_ranks: int, per_rank: int, capacity: int, tight: bool) -> Bins | None:
    bins: Bins = [[[] for _ in range(per_rank)] for _ in range(num_ranks)]
    tokens, costs = np.zeros((num_ranks, per_rank), np.int64), np.zeros((num_ranks, per_rank))
    for index in sorted(range(len(items)), key=lambda index: (-items[index].cost, index)):
        has_room = (tokens + items[index].tokens <= capacity) | (tokens == 0)
        if not has_room.any():
            return None
        rank = int(np.where(has_room.any(1), costs.sum(1), math.inf).argmin())
        preference = -tokens[rank] if tight else costs[rank]
        place = int(np.where(has_room[rank], preference, math.inf).argmin())
        bins[rank][place].append(index)
        tokens[rank, place] += items[index].tokens
        costs[rank, place] += items[index].cost
    return [[sorted(contents) for contents in of_rank] for of_rank in bins]


@given(items=items, **layouts)
def test_bins_are_those_of_every_number_tried_in_turn(
    items: list[Item], num_ranks: int, multiple: int
) -> None:
    bins = fill_bins(items, num_ranks=num_ranks, capacity=CAPACITY, multiple=multiple)
    assert bins == one_by_one(items, num_ranks, CAPACITY, multiple)


@pytest.mark.parametrize(("tokens", "per_bin", "num_tries"), [(34, 2, 1), (15, 6, 1), (60, 1, 1)])
def test_far_from_the_sum_of_tokens_few_numbers_of_bins_are_tried(
    tokens: int, per_bin: int, num_tries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In turn, from the sum on, there would be up to 159 tries."""
    tried: list[int] = []
    placed_by_fill_bins = bins_module._placed

    def counting(items: list[Item], num_ranks: int, per_rank: int, *rest: int, tight: bool) -> Bins | None:
        tried.append(per_rank)
        return placed_by_fill_bins(items, num_ranks, per_rank, *rest, tight=tight)

    monkeypatch.setattr(bins_module, "_placed", counting)
    items = [Item(tokens, float(tokens))] * 400
    bins = fill_bins(items, num_ranks=2, capacity=CAPACITY, multiple=1)
    assert len(bins[0]) == -(-400 // (2 * per_bin))
    assert len(tried) <= num_tries
