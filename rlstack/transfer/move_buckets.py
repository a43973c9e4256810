"""How moves are laid out in the buckets that go over the wire, and each bucket's way through the group of
trainer ranks and engine workers, relays included. Pure, the same on all ends.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rlstack.transfer.layout import Box, volume
from rlstack.transfer.plan import Move, Plan, Relay

ALIGNMENT_BYTES = 16  # an offset that every dtype can be viewed at
# Buckets of a rank that are in memory at once: one is packed while the others are on their way.
NUM_SLOTS = 4


@dataclass(frozen=True, slots=True)
class Bucket:
    """Moves of one pair that are sent together: `offsets[i]` is the first byte of `moves[i]`, row by row."""

    source: int
    receiver: int
    index: int  # counts the buckets of the pair
    moves: tuple[Move, ...]
    offsets: tuple[int, ...]
    num_bytes: int  # padding between moves included


def plan_buckets(
    plan: Plan, *, bucket_bytes: int, source: int | None = None, receiver: int | None = None
) -> list[Bucket]:
    """Fill buckets of at most `bucket_bytes` with each pair's moves; larger moves are cut, dimension 0 first.

    A function of its arguments alone, so that no layout has to travel with the data. In this order each
    source starts with another receiver and goes round, so that they do not all press on the same one.

    source, receiver: leave out the buckets of all others; the order stays as it is.
    """
    pairs: dict[tuple[int, int], list[Move]] = defaultdict(list)
    for move in plan.moves(source=source, receiver=receiver):
        pairs[move.source, move.receiver].append(move)
    num_receivers = max((index for index, share in enumerate(plan.shares) if share.wants), default=0) + 1
    buckets = [bucket for moves in pairs.values() for bucket in _pack(plan, moves, bucket_bytes)]
    return sorted(buckets, key=lambda b: (b.index, (b.receiver - b.source) % num_receivers, b.source))


@dataclass(frozen=True, slots=True)
class Delivery:
    """`bucket` goes from rank `sender` to rank `receiver` of the group, in which sources come first."""

    bucket: Bucket
    tag: int  # of the bucket, among all that go from `sender` to `receiver`
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
    for bucket in buckets:
        tag = bucket.index * num_sources + bucket.source
        sender = bucket.source
        for receiver in (bucket.receiver, *chains[bucket.receiver]):
            yield Delivery(bucket, tag, sender, num_sources + receiver)
            sender = num_sources + receiver


def member_name(rank: int, num_sources: int) -> str:
    """For messages: who that is, in a group in which sources come first."""
    return f"trainer rank {rank}" if rank < num_sources else f"engine worker {rank - num_sources}"


def _pack(plan: Plan, moves: Iterable[Move], bucket_bytes: int) -> Iterator[Bucket]:
    index, end = 0, 0
    pending: list[Move] = []
    offsets: list[int] = []

    def bucket() -> Bucket:
        first = pending[0]
        return Bucket(first.source, first.receiver, index, tuple(pending), tuple(offsets), end)

    for move in moves:
        for part in _cut(move, bucket_bytes // plan.itemsizes[move.name]):
            offset = -(-end // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
            if pending and offset + plan.num_bytes(part) > bucket_bytes:
                yield bucket()
                index, offset, pending, offsets = index + 1, 0, [], []
            pending.append(part)
            offsets.append(offset)
            end = offset + plan.num_bytes(part)
    if pending:
        yield bucket()


def _cut(move: Move, max_elements: int) -> Iterator[Move]:
    if volume(move.box) <= max_elements:
        yield move
    else:
        yield from (move.narrowed(part) for part in _parts(move.box, max_elements))


def _parts(box: Box, max_elements: int) -> Iterator[Box]:
    """Cut `box` into boxes of at most `max_elements`, of whole rows where a row is not larger than that."""
    if volume(box) <= max_elements:
        yield box
        return
    (low, high), rest = box[0], box[1:]
    num_rows = max_elements // volume(rest)
    if num_rows:
        yield from (((start, min(start + num_rows, high)), *rest) for start in range(low, high, num_rows))
    else:
        yield from (
            ((row, row + 1), *part) for row in range(low, high) for part in _parts(rest, max_elements)
        )
