"""Which example goes into which micro-batch of which data-parallel rank. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

Bins = list[list[list[int]]]  # [rank][micro-batch]: indices of items, ascending


class Item(NamedTuple):
    """An example, as far as it matters here."""

    tokens: int  # at least 1
    cost: float  # in any unit


def fill_bins(items: Sequence[Item], *, num_ranks: int, capacity: int, multiple: int) -> Bins:
    """Each item in one bin: in as few bins as are found to hold them, at about equal costs.

    A bin holds at most `capacity` tokens, or one item. All ranks have the same number of bins, which is a
    multiple of `multiple`; with as many as there are items they hold them in any case.
    """
    num_tokens = sum(min(item.tokens, capacity) for item in items)
    num_units = max(1, math.ceil(num_tokens / (capacity * num_ranks * multiple)))
    while True:
        per_rank = num_units * multiple
        for tight in (False, True):
            if (bins := _placed(items, num_ranks, per_rank, capacity, tight=tight)) is not None:
                return bins
        num_units += 1


def _placed(
    items: Sequence[Item], num_ranks: int, per_rank: int, capacity: int, *, tight: bool
) -> Bins | None:
    """Dearest first to the rank with the lowest cost that has room; None if an item finds none.

    Of the rank's bins it takes the cheapest one that has room, which balances them; the fullest one if
    `tight`, which leaves more room for large items.
    """
    bins: Bins = [[[] for _ in range(per_rank)] for _ in range(num_ranks)]
    tokens = np.zeros((num_ranks, per_rank), np.int64)
    costs = np.zeros((num_ranks, per_rank), np.float64)
    for index in sorted(range(len(items)), key=lambda index: (-items[index].cost, index)):
        item = items[index]
        has_room = (tokens + item.tokens <= capacity) | (tokens == 0)
        has_rank = has_room.any(1)
        if not has_rank.any():
            return None
        rank = int(np.where(has_rank, costs.sum(1), math.inf).argmin())
        preference = -tokens[rank] if tight else costs[rank]
        place = int(np.where(has_room[rank], preference, math.inf).argmin())
        bins[rank][place].append(index)
        tokens[rank, place] += item.tokens
        costs[rank, place] += item.cost
    return [[sorted(contents) for contents in of_rank] for of_rank in bins]
