from dataclasses import replace

import pytest

from rlstack.transfer.layout import Piece, View
from rlstack.transfer.plan import Plan, Relay, chains
from rlstack.transfer.relay import build_relayed_plan, needs_relay

SHAPES = {"w": (1024, 8)}


def rows(num_ranks: int, tensor: str = "w") -> list[list[Piece]]:
    height = 1024 // num_ranks
    view = View(tensor, 0, (8, 1))
    return [[Piece("w", ((i * height, (i + 1) * height), (0, 8)), view)] for i in range(num_ranks)]


def plan_of(sources: list[list[Piece]], receivers: list[list[Piece]], bucket_bytes: int = 64) -> Plan:
    return build_relayed_plan(
        sources, receivers, shapes=SHAPES, itemsizes={"w": 2}, bucket_bytes=bucket_bytes
    )


@pytest.mark.parametrize(
    ("sent_directly", "sent_to_first", "received", "num_hops", "bucket_bytes", "relay"),
    [
        (400, 100, 100, 3, 10, True),  # one rank serves four engines
        (100, 100, 100, 0, 10, False),  # there is nobody to pass anything to
        (400, 100, 100, 3, 100, False),  # filling the chain costs what it saves
        (400, 100, 100, 3, 99, True),
        (200, 50, 400, 3, 10, False),  # the receivers' links are the bottleneck, relays or not
    ],
)
def test_relays_are_for_a_trainer_that_is_the_bottleneck(
    sent_directly: int, sent_to_first: int, received: int, num_hops: int, bucket_bytes: int, relay: bool
) -> None:
    assert relay is needs_relay(
        sent_directly=sent_directly,
        sent_to_first=sent_to_first,
        received=received,
        num_hops=num_hops,
        bucket_bytes=bucket_bytes,
    )


def test_workers_of_one_layout_form_chains() -> None:
    assert chains(rows(2) * 3) == [[0, 2, 4], [1, 3, 5]]
    assert chains(rows(1) + rows(1, tensor="elsewhere") + rows(2)) == [[0], [1], [2], [3]]


def test_one_source_sends_to_the_first_engine_only() -> None:
    plan = plan_of(rows(1), rows(2) * 3)
    assert plan.relays == (Relay(0, 2), Relay(2, 4), Relay(1, 3), Relay(3, 5))
    assert {move.receiver for move in plan.moves()} == {0, 1}
    assert plan.bytes_sent(0) == 1024 * 8 * 2
    assert {plan.bytes_received(receiver) for receiver in range(6)} == {512 * 8 * 2}


def test_every_receiver_has_the_bytes_after_the_relays_in_their_order() -> None:
    plan = plan_of(rows(1), rows(2) * 3)
    served = {move.receiver for move in plan.moves()}
    for relay in plan.relays:
        assert relay.sender in served
        served.add(relay.receiver)
    assert served == set(range(6))


@pytest.mark.parametrize(
    ("sources", "receivers", "bucket_bytes"),
    [
        (rows(4), rows(4), 64),  # one engine
        (rows(4), rows(1) + rows(2), 64),  # engines of different layouts
        (rows(4), rows(1) * 2, 64),  # four links feed two
        (rows(1), rows(1) * 2, 1024 * 8 * 2),  # one bucket holds everything
    ],
)
def test_everything_else_is_sent_directly(
    sources: list[list[Piece]], receivers: list[list[Piece]], bucket_bytes: int
) -> None:
    plan = plan_of(sources, receivers, bucket_bytes)
    assert plan.relays == ()
    assert {move.receiver for move in plan.moves()} == set(range(len(receivers)))


def test_relays_are_part_of_the_digest() -> None:
    chain = plan_of(rows(1), rows(1) * 3)
    star = (Relay(0, 1), Relay(0, 2))
    plans = [chain, replace(chain, relays=()), replace(chain, relays=star)]
    assert len({plan.digest() for plan in plans}) == 3
