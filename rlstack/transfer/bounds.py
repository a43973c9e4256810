"""What no transfer of a plan can beat: its busiest link at full bandwidth, nothing else taking any time."""

from __future__ import annotations

from rlstack.transfer.plan import Plan


def busiest_link_bytes(plan: Plan, *, num_sources: int, num_receivers: int) -> int:
    """The most bytes that one rank sends or receives; links are full duplex, one per rank.

    A relay's sender sends all that it has received.
    """
    sent = (plan.bytes_sent(source) for source in range(num_sources))
    received = (plan.bytes_received(receiver) for receiver in range(num_receivers))
    return max(*sent, *received)


def lower_bound_s(num_bytes: int, *, gb_per_s: float) -> float:
    """Seconds for `num_bytes` over one link of `gb_per_s`, in 10^9 bytes per second and direction."""
    return num_bytes / (gb_per_s * 1e9)
