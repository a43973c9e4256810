"""Engines of one layout can pass weights on to each other; the trainer then sends to the first one only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rlstack.transfer.layout import Piece
from rlstack.transfer.plan import Demand, Plan


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
    demand = Demand(sources, receivers, shapes=shapes, itemsizes=itemsizes)
    return choose_plan(demand, num_sources=len(sources), bucket_bytes=bucket_bytes)


def choose_plan(demand: Demand, *, num_sources: int, bucket_bytes: int) -> Plan:
    """The plan of `build_relayed_plan` for what the receivers need."""
    num_hops = max(map(len, demand.chains), default=1) - 1
    if not num_hops:
        return demand.plan()
    relayed = demand.relayed_plan()

    def worth_it(sent_directly: int) -> bool:
        return needs_relay(
            sent_directly=sent_directly,
            sent_to_first=_busiest(relayed, num_sources),
            received=demand.max_received(),
            num_hops=num_hops,
            bucket_bytes=bucket_bytes,
        )

    # Most often the bound decides, and the plan without relays, which is far larger, need not be made.
    if worth_it(demand.least_sent()):
        return relayed
    direct = demand.plan()
    return relayed if worth_it(_busiest(direct, num_sources)) else direct


def needs_relay(
    *, sent_directly: int, sent_to_first: int, received: int, num_hops: int, bucket_bytes: int
) -> bool:
    """Whether a chain takes less time than the busiest source needs to send to every receiver itself.

    sent_directly, sent_to_first: bytes of the busiest source without and with relays; received: bytes of the
    busiest receiver, which a relay also sends on. Links are full duplex and equal, so bytes stand for time. A
    chain is a pipeline of buckets: its last receiver is behind the first one by a bucket per hop.
    """
    return max(sent_to_first, received) + num_hops * bucket_bytes < max(sent_directly, received)


def _busiest(plan: Plan, num_sources: int) -> int:
    return max(map(plan.bytes_sent, range(num_sources)))
