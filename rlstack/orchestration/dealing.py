"""Items dealt out in turn, like cards, and what came of them put together again. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TypeVar, cast

T = TypeVar("T")


def deal(items: Sequence[T], num_shares: int) -> list[list[T]]:
    """The shares: item i goes to share i mod `num_shares`, so that they differ by one item at most."""
    return [list(items[first::num_shares]) for first in range(num_shares)]


def put_together(shares: Collection[Sequence[T]], num_items: int) -> list[T]:
    """The items of all shares in the order in which `deal` took them.

    Raises:
        ValueError: a share is not as long as `deal` makes it of `num_items`.
    """
    items: list[T | None] = [None] * num_items
    for first, share in enumerate(shares):
        items[first :: len(shares)] = share
    return cast(list[T], items)
