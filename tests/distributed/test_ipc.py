"""Memory that two processes share, and what is announced about it."""

from __future__ import annotations

import json
import multiprocessing as mp
import os
import stat
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import pytest
import torch
from torch.distributed import Store

from rlstack.rendezvous import connect_store, serve_store
from rlstack.transfer.errors import TransferError
from rlstack.transfer.ipc import IpcGroup
from rlstack.transfer.shared_memory import SharedMemory, open_memory

HOST = "127.0.0.1"
CPU = torch.device("cpu")


def in_another_process(call, *args):
    with ProcessPoolExecutor(1, mp_context=mp.get_context("spawn")) as pool:
        return pool.submit(call, *args).result(120)


def increment(handle: str) -> None:
    memory = open_memory(handle)
    memory += 1
    if memory.is_cuda:
        torch.cuda.synchronize()


def made_and_ended() -> str:
    return SharedMemory(64, device=CPU).handle()


@pytest.fixture(scope="module", autouse=True)
def importable(pytestconfig) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.syspath_prepend(str(pytestconfig.rootpath))  # a spawned process imports this file by name
        yield


no_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, no_gpu])])
def test_another_process_writes_to_it(device):
    memory = SharedMemory(5000, device=torch.device(device))
    memory.tensor[17] = 4
    for handle in (memory.handle(), memory.handle()):
        in_another_process(increment, handle)
    assert memory.tensor[17] == 6 and memory.tensor.sum() == 2 * 5000 + 4


def test_it_has_no_name_in_a_file_system_and_is_for_its_user():
    memory = SharedMemory(64, device=CPU)
    fields = json.loads(memory.handle())
    status = os.stat(f"/proc/{fields['pid']}/fd/{fields['fd']}")
    assert status.st_nlink == 0 and stat.S_IMODE(status.st_mode) == 0o600 and status.st_size == 64


def test_nothing_but_what_was_meant_is_opened(tmp_path):
    with pytest.raises(TransferError, match=r"both have to run on one host.* set transfer\.channel=network"):
        open_memory(in_another_process(made_and_ended))
    with (tmp_path / "file").open("wb+") as file:
        file.truncate(64)
        stranger = {"pid": os.getpid(), "fd": file.fileno(), "name": "rlstack-0", "num_bytes": 64}
        with pytest.raises(TransferError, match="is something else on this host"):
            open_memory(json.dumps(stranger))


@dataclass
class Pair:
    """Rank 0 sends to rank 1; both in this process, where only the order of their calls matters."""

    store: Store
    sender: IpcGroup
    receiver: IpcGroup
    memory: torch.Tensor


@pytest.fixture
def pair() -> Iterator[Pair]:
    server = serve_store(HOST, timeout_s=30.0)
    store = connect_store(HOST, server.port, timeout_s=30.0)
    receiver = IpcGroup(store, rank=1, senders=[0], receivers={}, timeout_s=5.0)
    memory = receiver.allocate(64, device=CPU)
    yield Pair(
        store, IpcGroup(store, rank=0, senders=[], receivers={1: "it"}, timeout_s=5.0), receiver, memory
    )


def bytes_of(value: int) -> torch.Tensor:
    return torch.full((16,), value, dtype=torch.uint8)


def test_nothing_is_written_before_the_receive_is_posted(pair):
    sending = pair.sender.send(bytes_of(7), to=1, tag=3)
    assert pair.memory.sum() == 0
    receiving = pair.receiver.receive(pair.memory[16:32], sender=0, tag=3)
    sending.wait(time.monotonic() + 5)
    receiving.wait(time.monotonic() + 5)
    assert pair.memory.tolist() == [0] * 16 + [7] * 16 + [0] * 32


def test_waits_end_and_a_late_one_still_finds_what_has_come(pair):
    missing = pair.receiver.receive(pair.memory[:16], sender=0, tag=0)
    there = pair.receiver.receive(pair.memory[16:32], sender=0, tag=1)
    pair.sender.send(bytes_of(5), to=1, tag=1)
    unposted = pair.sender.send(bytes_of(9), to=1, tag=2)
    for handle in (missing, unposted):
        with pytest.raises(TransferError, match="nothing came of it within the limit"):
            handle.wait(time.monotonic() + 0.01)
    there.wait(time.monotonic() - 1)
    assert pair.memory[16:32].equal(bytes_of(5))


def test_a_round_finds_no_words_of_the_one_before(pair):
    num_keys = pair.store.num_keys()
    for value in (1, 2):
        receiving = pair.receiver.receive(pair.memory[:16], sender=0, tag=0)
        with pytest.raises(TransferError):
            receiving.wait(time.monotonic() + 0.01)
        pair.sender.send(bytes_of(value), to=1, tag=0).wait(time.monotonic() + 5)
        receiving.wait(time.monotonic() + 5)
        assert pair.memory[:16].equal(bytes_of(value))
        assert pair.store.num_keys() == num_keys


def test_a_receiver_that_does_not_come_is_named(pair):
    with pytest.raises(TransferError, match=r"waited 0\.1 s for engine worker 4"):
        IpcGroup(pair.store, rank=0, senders=[], receivers={6: "engine worker 4"}, timeout_s=0.1)
