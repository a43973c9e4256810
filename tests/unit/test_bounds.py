import pytest

from rlstack.orchestration.transfer_forecast import busiest_link_bytes, lower_bound_s
from rlstack.transfer.layout import Piece, View
from rlstack.transfer.plan import build_plan

WHOLE = Piece("w", ((0, 1000),), View("w", 0, (1,)))
HALVES = [[Piece("w", ((i * 500, (i + 1) * 500),), View("w", 0, (1,)))] for i in range(2)]


@pytest.mark.parametrize(
    ("sources", "receivers", "busiest"),
    [
        ([[WHOLE]], HALVES, 2000),  # the source sends both halves
        (HALVES, [[WHOLE]], 2000),  # the receiver gets both halves
        (HALVES, HALVES, 1000),
        ([[WHOLE]], [[WHOLE]] * 3, 6000),
        ([[WHOLE]] * 3, [[WHOLE]] * 3, 2000),
    ],
)
def test_the_busiest_link_counts(
    sources: list[list[Piece]], receivers: list[list[Piece]], busiest: int
) -> None:
    plan = build_plan(sources, receivers, shapes={"w": (1000,)}, itemsizes={"w": 2})
    assert busiest == busiest_link_bytes(plan, num_sources=len(sources), num_receivers=len(receivers))


def test_seconds_at_full_bandwidth() -> None:
    assert lower_bound_s(100_000_000_000, gb_per_s=50) == 2.0
