"""What goes wrong on the wire is refused before anyone gets to see it; the wire is a dictionary here."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import torch

from rlstack.transfer.inbox import Inbox
from rlstack.transfer.layout import Box, Piece, View
from rlstack.transfer.move_buckets import Delivery, deliveries, plan_buckets
from rlstack.transfer.outbox import Outbox
from rlstack.transfer.plan import Relay, build_plan

NUM_SOURCES = 2
DTYPES = {"embed": torch.float32, "down": torch.bfloat16, "norm": torch.float32}
WEIGHTS = {"embed": (24, 6), "down": (8, 10), "norm": (10,)}


def piece(name: str, box: Box) -> Piece:
    """A view into the whole tensor, of the same name."""
    strides = torch.empty(WEIGHTS[name], device="meta").stride()
    start = sum(low * stride for (low, _), stride in zip(box, strides, strict=True))
    return Piece(name, box, View(name, start, strides))


SOURCES = [
    [
        piece("embed", ((12 * i, 12 * i + 12), (0, 6))),
        piece("down", ((0, 8), (5 * i, 5 * i + 5))),
        piece("norm", ((0, 10),)),
    ]
    for i in range(NUM_SOURCES)
]
RECEIVER = [piece("embed", ((6, 18), (0, 6))), piece("down", ((0, 4), (0, 10))), piece("norm", ((0, 10),))]


def weights(version: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(version)
    return {name: torch.randn(shape, generator=generator) for name, shape in WEIGHTS.items()}


@dataclass
class Wire:
    """Keeps what is sent until it is asked for."""

    ordered: bool = False
    mail: dict[tuple[int, int], bytes] = field(default_factory=dict)  # by receiver and tag
    rank: int = 0

    def allocate(self, num_bytes: int, *, device: torch.device) -> torch.Tensor:
        return torch.zeros(num_bytes, dtype=torch.uint8, device=device)

    def send(self, buffer: torch.Tensor, *, to: int, tag: int) -> Wire:
        self.mail[to, tag] = bytes(buffer.tolist())
        return self

    def receive(self, buffer: torch.Tensor, *, sender: int, tag: int) -> Letter:
        return Letter(self, buffer, tag)

    def wait(self, deadline: float) -> None:
        """Sent is gone."""


@dataclass
class Letter:
    wire: Wire
    buffer: torch.Tensor
    tag: int

    def wait(self, deadline: float) -> None:
        content = self.wire.mail.pop((self.wire.rank, self.tag), None)
        if content is None or len(content) != self.buffer.numel():
            raise RuntimeError("timed out")
        self.buffer.copy_(torch.frombuffer(bytearray(content), dtype=torch.uint8))


@dataclass
class Ends:
    """Two sources and some receivers of one layout, each receiver passing on to the next one."""

    wires: list[Wire]
    outboxes: list[Outbox]
    inboxes: list[Inbox]
    ways: list[Delivery]

    @classmethod
    def make(cls, *, num_receivers: int = 1, bucket_bytes: int = 64, ordered: bool = False) -> Ends:
        itemsizes = {name: dtype.itemsize for name, dtype in DTYPES.items()}
        plan = build_plan(SOURCES, [RECEIVER], shapes=WEIGHTS, itemsizes=itemsizes)
        relays = [Relay(i, i + 1) for i in range(num_receivers - 1)]
        ways = list(
            deliveries(plan_buckets(plan, bucket_bytes=bucket_bytes), relays, num_sources=NUM_SOURCES)
        )
        mail: dict[tuple[int, int], bytes] = {}
        wires = [Wire(ordered, mail, rank) for rank in range(NUM_SOURCES + num_receivers)]
        common = {"dtypes": DTYPES, "num_sources": NUM_SOURCES, "device": torch.device("cpu")}

        def mine(rank: int, side: str) -> list[Delivery]:
            return [way for way in ways if getattr(way, side) == rank]

        outboxes = [Outbox(mine(i, "sender"), wires[i], **common) for i in range(NUM_SOURCES)]
        inboxes = [
            Inbox(mine(i, "receiver"), mine(i, "sender"), wires[i], **common)
            for i in range(NUM_SOURCES, NUM_SOURCES + num_receivers)
        ]
        return cls(wires, outboxes, inboxes, ways)

    def transfer(
        self, version: int, fault: Callable[[dict[tuple[int, int], bytes]], object] = lambda mail: None
    ) -> list[list[str]]:
        """What each receiver says went wrong, `fault` having had the mail in its hands."""
        for outbox in self.outboxes:
            assert outbox.send(weights(version).__getitem__, version=version, deadline=0.0) == []
        fault(self.wires[0].mail)
        troubles = [inbox.receive(version=version, deadline=0.0)[0] for inbox in self.inboxes]
        self.wires[0].mail.clear()
        return troubles


def landed(inbox: Inbox) -> dict[str, torch.Tensor]:
    """Whole tensors with NaN where nothing has arrived."""
    tensors = {n: torch.full(shape, float("nan"), dtype=DTYPES[n]) for n, shape in WEIGHTS.items()}
    for view, shape, data in inbox.arrivals:
        tensors[view.tensor].as_strided(shape, view.strides, view.offset).copy_(data)
    return tensors


def assert_landed(inbox: Inbox, version: int) -> None:
    expected = {n: torch.full(shape, float("nan"), dtype=DTYPES[n]) for n, shape in WEIGHTS.items()}
    for held in RECEIVER:
        box = tuple(slice(low, high) for low, high in held.box)
        expected[held.name][box] = weights(version)[held.name][box].to(DTYPES[held.name])
    for name, tensor in landed(inbox).items():
        assert torch.equal(tensor.nan_to_num(9.0), expected[name].nan_to_num(9.0)), name


@pytest.mark.parametrize("bucket_bytes", [16, 128, 10_000])
@pytest.mark.parametrize("ordered", [False, True])
def test_a_chain_of_engines_gets_the_weights_in_the_wires_dtype(bucket_bytes, ordered):
    ends = Ends.make(num_receivers=3, bucket_bytes=bucket_bytes, ordered=ordered)
    for version in (1, 2):
        assert ends.transfer(version) == [[], [], []]
        for inbox in ends.inboxes:
            assert_landed(inbox, version)


def test_every_one_of_500_flipped_bits_is_seen_and_the_next_round_is_whole():
    ends, chance = Ends.make(), random.Random(0)

    def flip(mail: dict[tuple[int, int], bytes]) -> None:
        key = chance.choice(sorted(mail))
        damaged = bytearray(mail[key])
        damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
        mail[key] = bytes(damaged)

    for version in range(500):
        ((trouble,),) = ends.transfer(version, flip)
        assert f"version {version}, bucket" in trouble and "is not what was sent" in trouble
    assert ends.transfer(500) == [[]]
    assert_landed(ends.inboxes[0], 500)


def test_every_dropped_bucket_is_missed():
    ends = Ends.make()
    for version, way in enumerate(ends.ways):
        ((trouble,),) = ends.transfer(version, lambda mail, way=way: mail.pop((way.receiver, way.tag)))
        assert f"bucket {way.bucket.index} from trainer rank {way.sender} to engine worker 0" in trouble
        assert way.bucket.moves[0].name in trouble and "timed out" in trouble


def test_every_pair_of_exchanged_buckets_is_seen():
    ends = Ends.make()
    keys = [(way.receiver, way.tag) for way in ends.ways]
    pairs = [(a, b) for a in keys for b in keys if a < b]
    assert len(pairs) > 10

    for version, (a, b) in enumerate(pairs):

        def exchange(mail, a=a, b=b):
            mail[a], mail[b] = mail[b], mail[a]

        ((first, *_),) = ends.transfer(version, exchange)
        assert "another bucket" in first or "timed out" in first


def test_a_round_of_another_version_is_refused():
    ends = Ends.make()
    for outbox in ends.outboxes:
        outbox.send(weights(1).__getitem__, version=1, deadline=0.0)
    troubles, lost = ends.inboxes[0].receive(version=2, deadline=0.0)
    assert len(troubles) == len(ends.ways) and not lost
    assert all("of another version" in trouble for trouble in troubles)


def test_a_damaged_bucket_is_refused_all_along_the_chain():
    ends = Ends.make(num_receivers=3)
    first = ends.ways[0]

    def flip(mail):
        mail[first.receiver, first.tag] = b"\xff" + mail[first.receiver, first.tag][1:]

    troubles = ends.transfer(1, flip)
    assert [len(of_one) for of_one in troubles] == [1, 1, 1]
    assert "from engine worker 1 to engine worker 2" in troubles[2][0]
