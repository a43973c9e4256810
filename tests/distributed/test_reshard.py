"""Trainer ranks and engine workers in processes of their own: gloo, shared memory, and NCCL's order."""

from __future__ import annotations

import itertools
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, ExitStack
from typing import Any
from unittest import mock

import pytest
import torch

from rlstack.rendezvous import connect_store, serve_store
from rlstack.transfer import outbox
from rlstack.transfer.errors import TransferError
from rlstack.transfer.group import PeerGroup
from rlstack.transfer.ipc import IpcGroup
from rlstack.transfer.layout import Box, Piece, View
from rlstack.transfer.reshard import ReshardReceiver, ReshardSender, published_shapes
from tests.nccl_stand_in import nccl_stand_in
from tests.ranks import forks

HOST = "127.0.0.1"
SHAPES = {"embed": (64, 8), "down": (16, 12), "norm": (12,)}
NUM_SOURCES = 2
DEFAULTS = {"backend": "gloo", "bucket_bytes": 256, "timeout_s": 20.0}
GROUPS = {"gloo": PeerGroup, "ipc": IpcGroup, "nccl": PeerGroup}
ALONE = {11: [4], 12: [0, 5, 4]}  # receivers that take a version without the others
over_each = pytest.mark.parametrize("backend", GROUPS)


def piece(name: str, box: Box) -> Piece:
    strides = torch.empty(SHAPES[name], device="meta").stride()
    start = sum(low * stride for (low, _), stride in zip(box, strides, strict=True))
    return Piece(name, box, View(name, start, strides))


def source_layout(source: int) -> list[Piece]:
    return [
        piece("embed", ((32 * source, 32 * source + 32), (0, 8))),
        piece("down", ((0, 16), (6 * source, 6 * source + 6))),
        piece("norm", ((0, 12),)),
    ]


def receiver_layout(receiver: int) -> list[Piece]:
    """Two workers of one engine, then engines of one worker."""
    rows = ((receiver * 8, receiver * 8 + 8), (0, 12)) if receiver < 2 else ((0, 16), (0, 12))
    half = (receiver * 32, receiver * 32 + 32) if receiver < 2 else (0, 64)
    return [piece("embed", (half, (0, 8))), piece("down", rows), piece("norm", ((0, 12),))]


def weights(version: int) -> dict[str, torch.Tensor]:
    """As the sources hold them: "down" grows on the wire, "embed" shrinks."""
    generator = torch.Generator().manual_seed(version)
    held = {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}
    return {**held, "down": held["down"].bfloat16()}


def open_end(end: Callable[..., Any], port: int, *, num_receivers: int, **settings):
    """A sender or a receiver, by the store at `port`; settings: its own ones, and others than DEFAULTS."""
    with nccl_stand_in():
        return end(
            store_host=HOST,
            store_port=port,
            num_sources=NUM_SOURCES,
            num_receivers=num_receivers,
            **DEFAULTS | settings,
        )


def open_sender(port: int, source: int, held: dict[str, torch.Tensor], **settings):
    own = {"source": source, "pieces": source_layout(source), "tensor_of": held.__getitem__}
    return open_end(ReshardSender, port, **own, **settings)


def open_receiver(port: int, receiver: int, **settings):
    dtypes = {"embed": "bfloat16", "down": "float32", "norm": "float32"}
    own = {"receiver": receiver, "pieces": receiver_layout(receiver), "dtypes": dtypes}
    return open_end(ReshardReceiver, port, device=torch.device("cpu"), **own, **settings)


def send(port: int, source: int, versions: list[int], **settings) -> list[dict[str, float]]:
    held = weights(0)
    sender = open_sender(port, source, held, **settings)
    stats = []
    for version in versions:
        for name, tensor in weights(version).items():
            held[name].copy_(tensor)
        sender.begin(version, ALONE.get(version))
        stats.append(sender.fence())
    assert sender.fence() == {}
    return stats


def receive(port: int, receiver: int, versions: list[int], **settings) -> list[tuple[bool, dict[str, float]]]:
    """Of each version: whether exactly its layout arrived, and the stats."""
    opened = open_receiver(port, receiver, **settings)
    return [
        (take(opened, receiver, version), opened.stats)
        for version in versions
        if receiver in ALONE.get(version, [receiver])
    ]


def take(opened: ReshardReceiver, receiver: int, version: int) -> bool:
    opened.begin(version, ALONE.get(version))
    arrived = {name: torch.full(shape, 9.0) for name, shape in SHAPES.items()}
    for view, shape, data in opened.finish(version):
        arrived[view.tensor].as_strided(shape, view.strides, view.offset).copy_(data)
    expected = {name: torch.full(shape, 9.0) for name, shape in SHAPES.items()}
    for held in receiver_layout(receiver):
        box = tuple(slice(low, high) for low, high in held.box)
        sent = weights(version)[held.name][box]
        expected[held.name][box] = sent.bfloat16() if held.name == "embed" else sent
    return all(torch.equal(arrived[name], expected[name]) for name in SHAPES)


def send_damaged(port: int, source: int, versions: list[int], **settings) -> None:
    """Source 1 seals version 1 and then flips a bit of every bucket."""

    def seal(buffer: torch.Tensor, bucket: object, *, version: int, seal=outbox.seal) -> None:
        seal(buffer, bucket, version=version)
        if version == 1 and source == 1:
            buffer[3] ^= 16

    with mock.patch.object(outbox, "seal", seal):
        send(port, source, versions, **settings)


def receive_refusing(port: int, receiver: int, **settings) -> tuple[str, bool]:
    """What version 1 is refused for, and whether version 2 is whole."""
    opened = open_receiver(port, receiver, **settings)
    opened.begin(1)
    with pytest.raises(TransferError) as refused:
        opened.finish(1)
    return str(refused.value), take(opened, receiver, 2)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def on_second(
    method: str, happen: Callable[[], object], *, backend: str = "gloo"
) -> AbstractContextManager[object]:
    """Within, `happen` comes before the second `method` of this process's group."""
    calls = itertools.count(1)
    start = getattr(GROUPS[backend], method)

    def starting(*args: object, **keywords: object) -> object:
        if next(calls) == 2:
            happen()
        return start(*args, **keywords)

    return mock.patch.object(GROUPS[backend], method, starting)


def killed_source(port: int, source: int, **settings) -> None:
    with on_second("send", die, backend=settings["backend"]):
        send(port, source, [1], **settings)


def stalled_source(port: int, source: int, **settings) -> None:
    with on_second("send", lambda: time.sleep(6)):
        send(port, source, [1], **settings)


def killed_receiver(port: int, receiver: int, **settings) -> None:
    opened = open_receiver(port, receiver, **settings)
    with on_second("receive", die, backend=settings["backend"]):
        opened.begin(1)
        opened.finish(1)


def error_of(call: Callable[..., object], *args: object, **settings) -> str:
    """The TransferError of `call`, "" if there is none."""
    try:
        call(*args, **settings)
    except TransferError as error:
        return str(error)
    return ""


@pytest.fixture
def port() -> Iterator[int]:
    store = serve_store(HOST, timeout_s=30.0)
    yield store.port


@pytest.fixture(scope="module", autouse=True)
def importable(pytestconfig) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.syspath_prepend(str(pytestconfig.rootpath))  # processes import this file by name
        yield


@pytest.fixture
def start() -> Iterator[Callable[..., Future]]:
    """Runs a call in a process of its own, and sees to it that this ends by itself."""
    with ExitStack() as pools:

        def run(call: Callable[..., object], *args: object, **settings) -> Future:
            pool = pools.enter_context(ProcessPoolExecutor(1, mp_context=forks()))
            return pool.submit(call, *args, **settings)

        yield run


@over_each
def test_every_worker_gets_exactly_its_share_round_after_round(port, start, backend):
    versions, settings = [1, 2, 5], {"num_receivers": 3, "backend": backend}
    senders = [start(send, port, i, versions, **settings) for i in range(NUM_SOURCES)]
    receivers = [start(receive, port, i, versions, **settings) for i in range(3)]
    num_bytes = [32 * 8 * 2 + 8 * 12 * 4 + 48] * 2 + [64 * 8 * 2 + 16 * 12 * 4 + 48]
    for receiver, share in zip(receivers, num_bytes, strict=True):
        results = receiver.result(60)
        assert [whole for whole, _ in results] == [True] * 3
        assert [stats["bytes"] for _, stats in results] == [share] * 3
    sent = [sender.result(60)[0]["bytes"] for sender in senders]
    assert sum(sent) == sum(num_bytes) and max(sent) < 1.1 * min(sent)
    store = connect_store(HOST, port, timeout_s=20.0)
    left = [version for version in versions if store.check([f"reshard/version{version}/receiver0"])]
    assert left == [5]


@over_each
def test_equal_engines_pass_the_weights_on(port, start, backend):
    """Receivers 2 to 7 are engines of one layout; a bucket holds everything that a pair exchanges."""
    settings = {"num_receivers": 8, "bucket_bytes": 64, "backend": backend}
    senders = [start(send, port, i, [1, 2], **settings) for i in range(NUM_SOURCES)]
    receivers = [start(receive, port, i, [1, 2], **settings) for i in range(8)]
    for receiver in receivers:
        assert [whole for whole, _ in receiver.result(120)] == [True, True]
    sent = sum(sender.result(60)[0]["bytes"] for sender in senders)
    received = sum(receiver.result(60)[0][1]["bytes"] for receiver in receivers)
    assert sent < received / 2


@over_each
@pytest.mark.parametrize("bucket_bytes", [64, 4096])  # with relays and without
def test_some_workers_alone_take_a_version_between_rounds_of_all(port, start, backend, bucket_bytes):
    versions, settings = [1, 11, 2, 12, 3], {"bucket_bytes": bucket_bytes, "backend": backend}
    senders = [start(send, port, i, versions, num_receivers=6, **settings) for i in range(NUM_SOURCES)]
    receivers = [start(receive, port, i, versions, num_receivers=6, **settings) for i in range(6)]
    received = [[stats["bytes"] for _, stats in receiver.result(120)] for receiver in receivers]
    assert [len(rounds) for rounds in received] == [4, 3, 3, 3, 5, 4]
    assert all(whole for receiver in receivers for whole, _ in receiver.result(0))
    sent = [sum(figures) for figures in zip(*(_bytes(sender.result(60)) for sender in senders), strict=True)]
    assert sent[1] == received[4][0] and sent[3] == received[0][0] + 2 * received[4][0]


def _bytes(rounds: list[dict[str, float]]) -> list[float]:
    return [figures["bytes"] for figures in rounds]


@over_each
def test_a_damaged_version_is_refused_and_the_next_one_taken(port, start, backend):
    settings = {"num_receivers": 2, "backend": backend}
    for i in range(NUM_SOURCES):
        start(send_damaged, port, i, [1, 2], **settings)
    for receiver in [start(receive_refusing, port, i, **settings) for i in range(2)]:
        error, whole = receiver.result(60)
        assert "version 1, bucket 0 from trainer rank 1" in error and "damaged on the way" in error
        assert whole


@over_each
def test_a_killed_source_is_named_with_what_it_owed(port, start, backend):
    settings = {"num_receivers": 2, "timeout_s": 5.0, "bucket_bytes": 64, "backend": backend}
    sender = start(error_of, send, port, 0, [1], **settings)
    dead = start(killed_source, port, 1, **settings)
    receivers = [start(error_of, receive, port, i, [1], **settings) for i in range(2)]
    for receiver in receivers:
        error = receiver.result(60)
        assert re.search(r"from trainer rank 1 to engine worker \d \(1 tensors, (embed|down|norm) to", error)
    sender.result(60)
    with pytest.raises(BrokenProcessPool):
        dead.result(60)


def test_a_stalled_source_is_named_with_what_it_owes(port, start):
    settings = {"num_receivers": 2, "timeout_s": 5.0, "bucket_bytes": 64}
    sender = start(error_of, send, port, 0, [1], **settings)
    stalled = start(error_of, stalled_source, port, 1, **settings)
    for receiver in [start(error_of, receive, port, i, [1], **settings) for i in range(2)]:
        assert re.search(r"from trainer rank 1 to engine worker \d \(1 tensors", receiver.result(60))
    assert stalled.result(60)
    sender.result(60)


def test_a_killed_worker_is_named_and_does_not_keep_the_others_waiting(port, start):
    settings = {"num_receivers": 2, "timeout_s": 10.0, "bucket_bytes": 64, "backend": "gloo"}
    senders = [start(error_of, send, port, i, [1], **settings) for i in range(NUM_SOURCES)]
    receiver = start(receive, port, 0, [1], **settings)
    dead = start(killed_receiver, port, 1, **settings)
    for sender in senders:
        error = sender.result(60)
        assert re.search(r"to engine worker 1 \(1 tensors, (embed|down|norm) to", error)
    assert receiver.result(60)[0][0]
    with pytest.raises(BrokenProcessPool):
        dead.result(60)


def test_a_killed_worker_is_named_when_the_limit_of_the_round_is_over(port, start):
    """Nobody notices it earlier where there is no connection to break."""
    settings = {"num_receivers": 2, "timeout_s": 3.0, "bucket_bytes": 64, "backend": "ipc"}
    senders = [start(error_of, send, port, i, [1], **settings) for i in range(NUM_SOURCES)]
    receiver = start(error_of, receive, port, 0, [1], **settings)
    dead = start(killed_receiver, port, 1, **settings)
    for sender in senders:
        assert re.search(r"to engine worker 1 \(1 tensors, (embed|down|norm) to", sender.result(60))
    receiver.result(60)
    with pytest.raises(BrokenProcessPool):
        dead.result(60)


def test_who_does_not_come_is_named(port, start):
    with pytest.raises(TransferError, match=r"waited 0\.3 s for trainer rank 1"):
        open_sender(port, 0, weights(0), num_receivers=1, timeout_s=0.3)
    with pytest.raises(TransferError, match=r"waited 0\.3 s for trainer rank 1"):
        open_receiver(port, 0, num_receivers=1, timeout_s=0.3)


def test_a_source_that_does_not_send_is_named(port, start):
    settings = {"num_receivers": 1, "timeout_s": 2.0}
    senders = [start(send, port, i, [1] * (1 - i), **settings) for i in range(NUM_SOURCES)]
    error = start(error_of, receive, port, 0, [1], **settings).result(60)
    assert "version1: waited 2 s for trainer rank 1" in error
    for sender in senders:
        sender.exception(60)


def test_another_plan_is_refused(port, start):
    senders = [
        start(error_of, send, port, i, [1], num_receivers=1, bucket_bytes=256 + i) for i in range(NUM_SOURCES)
    ]
    receiver = start(error_of, receive, port, 0, [1], num_receivers=1)
    assert "receiver0 has another plan than trainer rank 1" in receiver.result(60)
    assert all("another plan" in sender.result(60) for sender in senders)


def test_shapes_are_those_of_the_sources_together(port, start):
    senders = [start(error_of, send, port, i, [], num_receivers=1, timeout_s=4.0) for i in range(NUM_SOURCES)]
    store = connect_store(HOST, port, timeout_s=20.0)
    assert published_shapes(store, timeout_s=20.0) == SHAPES
    for sender in senders:
        assert "engine worker 0" in sender.result(60)
