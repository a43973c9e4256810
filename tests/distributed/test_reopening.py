"""A transfer that has lost a member is given up, of which all hear at once, and opened again without it."""

from __future__ import annotations

import gc
import multiprocessing as mp
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from typing import Any

import psutil
import pytest

from rlstack.rendezvous import connect_store, serve_store
from rlstack.transfer.errors import TransferError
from rlstack.transfer.group import PeerGroup
from tests.distributed.test_reshard import (
    HOST,
    NUM_SOURCES,
    error_of,
    open_receiver,
    open_sender,
    receive,
    take,
    weights,
)

SETTINGS = {"timeout_s": 300.0, "bucket_bytes": 64}
SOON_S = 120.0  # which is well below the limit above
Start = Callable[..., "Future[Any]"]


@pytest.fixture(scope="module", autouse=True)
def importable(pytestconfig: pytest.Config) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.syspath_prepend(str(pytestconfig.rootpath))  # a spawned process imports this file by name
        yield


@pytest.fixture
def start() -> Iterator[Start]:
    """Runs a call in a process of its own, and sees to it that this ends by itself."""
    with ExitStack() as pools:

        def run(call: Callable[..., object], *args: object, **settings: object) -> Future[Any]:
            pool = pools.enter_context(ProcessPoolExecutor(1, mp_context=mp.get_context("spawn")))
            return pool.submit(call, *args, **settings)

        yield run


def test_who_waits_hears_at_once_that_the_transfer_was_given_up(start: Start) -> None:
    store: Any = serve_store(HOST, timeout_s=300.0)
    waiting = start(error_of, receive, store.port, 0, [1], num_receivers=1, **SETTINGS)
    store.wait(["reshard/layout/receiver0"])
    del store
    assert "given the transfer up" in waiting.result(SOON_S)


def sent_again(ports: list[int], source: int, backend: str) -> tuple[str, int, int]:
    """Why version 1 did not get through, and the files open before that and after version 2 has."""
    held = weights(1)
    sender = open_sender(ports[0], source, held, num_receivers=2, backend=backend, **SETTINGS)
    say_opened(ports[1], source)
    before = psutil.Process().num_fds()
    sender.begin(1)
    sender.settle()
    error = error_of(sender.fence)
    del sender
    gc.collect()
    held |= weights(2)
    sender = open_sender(ports[1], source, held, num_receivers=1, backend=backend, **SETTINGS)
    sender.send(2)
    return error, before, psutil.Process().num_fds()


def received_again(ports: list[int], backend: str) -> tuple[bool, int, int]:
    """Whether version 2 has come whole, and the files open before version 1 and after it."""
    opened = open_receiver(ports[0], 0, num_receivers=2, backend=backend, **SETTINGS)
    say_opened(ports[1], NUM_SOURCES)
    before = psutil.Process().num_fds()
    opened.begin(1)
    opened.settle()
    del opened
    gc.collect()
    opened = open_receiver(ports[1], 0, num_receivers=1, backend=backend, **SETTINGS)
    return take(opened, 0, 2), before, psutil.Process().num_fds()


def say_opened(port: int, rank: int) -> None:
    connect_store(HOST, port, timeout_s=SOON_S).set(f"opened{rank}", "")


def die_in_the_round(ports: list[int], backend: str) -> None:
    opened = open_receiver(ports[0], 1, num_receivers=2, backend=backend, **SETTINGS)
    others = [f"opened{rank}" for rank in range(NUM_SOURCES + 1)]
    connect_store(HOST, ports[1], timeout_s=SOON_S).wait(others)
    assert opened.stats == {}
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("backend", ["gloo", "ipc"])
def test_those_who_are_left_begin_again_and_keep_nothing_of_before(start: Start, backend: str) -> None:
    first: Any = serve_store(HOST, timeout_s=300.0)
    second = serve_store(HOST, timeout_s=300.0)
    ports = [first.port, second.port]
    senders = [start(sent_again, ports, i, backend) for i in range(NUM_SOURCES)]
    receiver = start(received_again, ports, backend)
    with pytest.raises(BrokenProcessPool):
        start(die_in_the_round, ports, backend).result(SOON_S)
    time.sleep(1.0)  # into the round
    del first
    for sender in senders:
        error, before, after = sender.result(SOON_S)
        assert re.search("engine worker 1|given the transfer up", error)
        assert after <= before
    whole, before, after = receiver.result(SOON_S)
    assert whole
    assert after <= before


def test_a_round_that_was_given_up_is_an_error_of_the_transfer(start: Start) -> None:
    store: Any = serve_store(HOST, timeout_s=300.0)
    port = store.port
    senders = [start(open_and_keep, port, source) for source in range(NUM_SOURCES)]
    opened = open_receiver(port, 0, num_receivers=1, **SETTINGS)
    for sender in senders:
        sender.result(SOON_S)  # a sender that still connects needs the store
    opened.begin(1)  # no sender begins
    del store
    with pytest.raises(TransferError, match="given the transfer up"):
        opened.finish(1)


OPEN: list[object] = []


def open_and_keep(port: int, source: int) -> None:
    """Open a sender that lasts as long as its process: a closed one would end the round by itself."""
    OPEN.append(open_sender(port, source, weights(1), num_receivers=1, **SETTINGS))


def test_a_member_that_still_connects_raises_an_error_of_the_transfer(start: Start) -> None:
    store: Any = serve_store(HOST, timeout_s=300.0)
    connecting = start(error_of, open_peers_alone, store.port)
    store.wait(["connecting"])
    time.sleep(1.0)  # into the rendezvous
    del store
    assert "given the transfer up" in connecting.result(SOON_S)


def open_peers_alone(port: int) -> None:
    store = connect_store(HOST, port, timeout_s=300.0)
    store.set("connecting", "")
    PeerGroup(store, rank=0, size=2, timeout_s=300.0, backend="gloo", peer_host=HOST)
