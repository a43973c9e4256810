"""Bits that flip in the memory that trainer ranks and an engine share."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from rlstack.rendezvous import connect_store, serve_store
from rlstack.transfer.inbox import Inbox
from rlstack.transfer.ipc import IpcGroup
from rlstack.transfer.move_buckets import deliveries, plan_buckets
from rlstack.transfer.outbox import Handle, Outbox
from rlstack.transfer.plan import build_plan
from tests.distributed.test_reshard_faults import (
    DTYPES,
    NUM_SOURCES,
    RECEIVER,
    SOURCES,
    WEIGHTS,
    assert_landed,
    weights,
)

HOST = "127.0.0.1"


class Noisy(IpcGroup):
    """Flips one bit of what comes with `tag`, once it is in the shared memory."""

    tag: int | None = None
    chance = random.Random(0)

    def receive(self, buffer: torch.Tensor, *, sender: int, tag: int) -> Handle:
        handle = super().receive(buffer, sender=sender, tag=tag)
        return Flipping(handle, buffer) if tag == self.tag else handle


class Flipping:
    def __init__(self, handle: Handle, buffer: torch.Tensor) -> None:
        self._handle, self._buffer = handle, buffer

    def wait(self, deadline: float) -> None:
        self._handle.wait(deadline)
        self._buffer[Noisy.chance.randrange(self._buffer.numel())] ^= 1 << Noisy.chance.randrange(8)


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(NUM_SOURCES) as pool:
        yield pool


def test_every_one_of_300_flipped_bits_is_seen_and_the_next_round_is_whole(threads) -> None:
    itemsizes = {name: dtype.itemsize for name, dtype in DTYPES.items()}
    plan = build_plan(SOURCES, [RECEIVER], shapes=WEIGHTS, itemsizes=itemsizes)
    ways = list(deliveries(plan_buckets(plan, bucket_bytes=64), [], num_sources=NUM_SOURCES))
    server = serve_store(HOST, timeout_s=30.0)
    stores = [connect_store(HOST, server.port, timeout_s=30.0) for _ in range(NUM_SOURCES + 1)]
    common = {"dtypes": DTYPES, "num_sources": NUM_SOURCES, "device": torch.device("cpu")}
    noisy = Noisy(stores[-1], rank=NUM_SOURCES, senders=range(NUM_SOURCES), receivers={}, timeout_s=30.0)
    inbox = Inbox(ways, [], noisy, **common)
    outboxes = [
        Outbox(
            [way for way in ways if way.sender == rank],
            IpcGroup(stores[rank], rank=rank, senders=[], receivers={NUM_SOURCES: "it"}, timeout_s=30.0),
            **common,
        )
        for rank in range(NUM_SOURCES)
    ]

    def transfer(version: int, tag: int | None) -> list[str]:
        noisy.tag, deadline = tag, time.monotonic() + 30
        sent = [
            threads.submit(box.send, weights(version).__getitem__, version=version, deadline=deadline)
            for box in outboxes
        ]
        troubles, lost = inbox.receive(version=version, deadline=deadline)
        assert not lost and [each.result(30) for each in sent] == [[], []]
        return troubles

    for version in range(300):
        way = Noisy.chance.choice(ways)
        (trouble,) = transfer(version, way.tag)
        assert (
            f"version {version}, bucket {way.bucket.index}" in trouble and "is not what was sent" in trouble
        )
    assert transfer(300, None) == []
    assert_landed(inbox, 300)
