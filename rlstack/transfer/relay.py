"""Engines of one layout can pass weights on to each other; the trainer then sends to the first one only."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise

from rlstack.transfer.layout import Piece
from rlstack.transfer.plan import Plan, Relay, build_plan


def build_relayed_plan(
    sources: Sequence[Sequence[Piece]],
    receivers: Sequence[Sequence[Piece]],
    *,
    shapes: Mapping[str, tuple[int, ...]],
    itemsizes: Mapping[str, int],
    bucket_bytes: int,
) -> Plan:
    """As `build_plan`, with relays where they shorten the transfer, which `needs_relay` decides.

    A receiver that a relay goes to has no moves: it gets all buckets of its sender, each as soon as the
    sender has verified it. Relays are in the order of their chains: a sender's own relay comes before it.
    """
    direct = build_plan(sources, receivers, shapes=shapes, itemsizes=itemsizes)
    alike = chains(receivers)
    relays = tuple(Relay(*pair) for chain in alike for pair in pairwise(chain))
    if not relays:
        return direct
    relayed = {relay.receiver for relay in relays}
    firsts = [() if receiver in relayed else pieces for receiver, pieces in enumerate(receivers)]
    plan = build_plan(sources, firsts, shapes=shapes, itemsizes=itemsizes)
    plan = Plan(plan.moves, itemsizes, relays)
    worth_it = needs_relay(
        sent_directly=max(map(direct.bytes_sent, range(len(sources)))),
        sent_to_first=max(map(plan.bytes_sent, range(len(sources)))),
        received=max(map(direct.bytes_received, range(len(receivers)))),
        num_hops=max(map(len, alike)) - 1,
        bucket_bytes=bucket_bytes,
    )
    return plan if worth_it else direct


def chains(receivers: Sequence[Sequence[Piece]]) -> list[list[int]]:
    """Receivers grouped by layout, in their order: equal pieces in equal windows are equal bytes."""
    alike: dict[tuple[Piece, ...], list[int]] = defaultdict(list)
    for receiver, pieces in enumerate(receivers):
        alike[tuple(pieces)].append(receiver)
    return list(alike.values())


def needs_relay(
    *, sent_directly: int, sent_to_first: int, received: int, num_hops: int, bucket_bytes: int
) -> bool:
    """Whether a chain takes less time than the busiest source needs to send to every receiver itself.

    sent_directly, sent_to_first: bytes of the busiest source without and with relays; received: bytes of the
    busiest receiver, which a relay also sends on. Links are full duplex and equal, so bytes stand for time. A
    chain is a pipeline of buckets: its last receiver is behind the first one by a bucket per hop.
    """
    return max(sent_to_first, received) + num_hops * bucket_bytes < max(sent_directly, received)
