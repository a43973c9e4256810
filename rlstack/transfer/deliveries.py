"""Every bucket's way through the group of trainer ranks and engine workers, relays included. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rlstack.transfer.move_buckets import Bucket
from rlstack.transfer.negotiation import member_name
from rlstack.transfer.plan import Relay


@dataclass(frozen=True, slots=True)
class Delivery:
    """`bucket` goes from rank `sender` to rank `receiver` of the group, in which sources come first."""

    bucket: Bucket
    tag: int  # of the bucket, among all buckets
    sender: int
    receiver: int

    def describe(self, *, version: int, num_sources: int) -> str:
        """For messages: what this is, from whom to whom."""
        moves = self.bucket.moves
        sender, receiver = (member_name(rank, num_sources) for rank in (self.sender, self.receiver))
        return (
            f"version {version}, bucket {self.bucket.index} from {sender} to {receiver} "
            f"({len(moves)} tensors, {moves[0].name} to {moves[-1].name})"
        )


def deliveries(buckets: Sequence[Bucket], relays: Sequence[Relay], *, num_sources: int) -> Iterator[Delivery]:
    """In an order that all ranks can follow without waiting for each other in a circle."""
    chains: dict[int, list[int]] = defaultdict(list)  # by first receiver; each sender's own relay came before
    firsts: dict[int, int] = {}
    for relay in relays:
        firsts[relay.receiver] = first = firsts.get(relay.sender, relay.sender)
        chains[first].append(relay.receiver)
    for tag, bucket in enumerate(buckets):
        sender = bucket.source
        for receiver in (bucket.receiver, *chains[bucket.receiver]):
            yield Delivery(bucket, tag, sender, num_sources + receiver)
            sender = num_sources + receiver
