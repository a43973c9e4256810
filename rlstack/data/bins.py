"""Which example goes into which micro-batch of which data-parallel rank. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

Bins = list[list[list[int]]]  # [rank][micro-batch]: indices of items, ascending

MOST_COUNTED = 32  # items to a bin up to which the lower bound counts them
NUM_IN_TURN = 4  # numbers of bins tried one by one before the steps double


class Item(NamedTuple):
    """An example, as far as it matters here."""

    tokens: int  # at least 1
    cost: float  # in any unit


def fill_bins(items: Sequence[Item], *, num_ranks: int, capacity: int, multiple: int) -> Bins:
    """Each item in one bin: in as few bins as are found to hold them, at about equal costs.

    A bin holds at most `capacity` tokens, or one item. All ranks have the same number of bins, which is a
    multiple of `multiple`; with as many as there are items they hold them in any case.

    The numbers of bins next to the lower bound are tried in turn. Where none of these holds the items, the
    steps double until one does, and the last step is bisected, so that few numbers are tried in any case.
    """

    def filled(num_units: int) -> Bins | None:
        placed = (
            _placed(items, num_ranks, num_units * multiple, capacity, tight=tight) for tight in (False, True)
        )
        return next((bins for bins in placed if bins is not None), None)

    num_units = math.ceil(_fewest_bins(items, capacity) / (num_ranks * multiple))
    too_few, step, num_tries = num_units - 1, 1, 1
    while (bins := filled(num_units)) is None:
        too_few, num_tries = num_units, num_tries + 1
        step = 1 if num_tries <= NUM_IN_TURN else 2 * step
        num_units += step
    while num_units - too_few > 1:
        middle = (too_few + num_units) // 2
        if (fewer := filled(middle)) is None:
            too_few = middle
        else:
            num_units, bins = middle, fewer
    return bins


def _fewest_bins(items: Sequence[Item], capacity: int) -> int:
    """A lower bound of the bins that hold `items`, at least 1.

    It is the larger of two. Of items that exceed 1 / (k + 1) of a bin no bin holds more than k. And L2 of
    Martello and Toth (1990):

    An item of more than half a bin shares it with none of its kind. Smaller items go where such items leave
    enough for the smallest of them that is counted, or into further bins; any number of the smallest items
    may be left out of the count, so that the bound is the largest of these counts.
    """
    sizes = np.sort(np.array([min(item.tokens, capacity) for item in items], np.int64))
    sums = np.append(0, np.cumsum(sizes))
    half = int(np.searchsorted(2 * sizes, capacity, "right"))  # the first item of more than half a bin
    first = np.arange(half + 1)  # the smallest item that is counted
    smallest = np.append(sizes[:half], capacity // 2)
    shared = np.searchsorted(sizes, capacity - smallest, "right")  # items from here on have bins of their own
    left = (shared - half) * capacity - (sums[shared] - sums[half])
    further = -((left - (sums[half] - sums[first])) // capacity)
    most = np.arange(1, MOST_COUNTED + 1)
    large = len(sizes) - np.array([np.searchsorted((k + 1) * sizes, capacity, "right") for k in most])
    return max(1, len(sizes) - half + int(further.max()), int((-(-large // most)).max()))


def _placed(
    items: Sequence[Item], num_ranks: int, per_rank: int, capacity: int, *, tight: bool
) -> Bins | None:
    """Dearest first to the rank with the lowest cost that has room; None if an item finds none.

    Of the rank's bins it takes the cheapest one that has room, which balances them; the fullest one if
    `tight`, which leaves more room for large items.
    """
    bins: Bins = [[[] for _ in range(per_rank)] for _ in range(num_ranks)]
    most = max((item.tokens for item in items), default=0)
    room = np.full((num_ranks, per_rank), max(capacity, most), np.int64)  # an empty bin takes any item
    costs = np.zeros((num_ranks, per_rank), np.float64)
    rank_room, rank_costs = room.max(1), costs.sum(1)
    for index in sorted(range(len(items)), key=lambda index: (-items[index].cost, index)):
        item = items[index]
        rank = int(np.where(rank_room >= item.tokens, rank_costs, math.inf).argmin())
        if rank_room[rank] < item.tokens:
            return None
        preference = room[rank] if tight else costs[rank]
        place = int(np.where(room[rank] >= item.tokens, preference, math.inf).argmin())
        room[rank, place] = (room[rank, place] if bins[rank][place] else capacity) - item.tokens
        costs[rank, place] += item.cost
        bins[rank][place].append(index)
        rank_room[rank], rank_costs[rank] = room[rank].max(), costs[rank].sum()
    return [[sorted(contents) for contents in of_rank] for of_rank in bins]
