"""Shared memory of processes that are killed: it goes with them, and nobody else's does."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlstack.orchestration.processes import kill_all, start_ticks
from rlstack.orchestration.shared_memory import unused_shared_memory
from tests.forking import memory_of, processes_of, remove_all_of, start_forking

SHARE = """
import mmap, sys, time
from multiprocessing import get_context, resource_tracker
from multiprocessing.shared_memory import SharedMemory
resource_tracker.register = lambda *names: None  # as if the tracker was killed first
own = SharedMemory(create=True, size=4096)
lock = get_context("spawn").Lock()
file = open(sys.argv[1], "r+b")
model = mmap.mmap(file.fileno(), 4096)
print(own.name, f"sem.{lock._semlock.name[1:]}", flush=True)
time.sleep(600)
"""


@pytest.fixture
def model() -> Iterator[Path]:
    """What somebody keeps in memory to have it at hand."""
    path = Path("/dev/shm/model-of-a-test.safetensors")
    path.write_bytes(bytes(4096))
    yield path
    path.unlink()


def start(model: Path) -> tuple[subprocess.Popen[str], list[Path]]:
    process = subprocess.Popen([sys.executable, "-c", SHARE, str(model)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, [Path("/dev/shm", name) for name in process.stdout.readline().split()]


def test_a_killed_role_takes_its_shared_memory_along_and_nothing_else(model: Path) -> None:
    process, memory = start(model)
    assert len(memory) == 2 and all(path.exists() for path in memory)
    start_of = start_ticks(process.pid)
    assert start_of is not None
    kill_all([(process.pid, start_of)])
    process.wait()
    assert not any(path.exists() for path in memory)
    assert model.exists()


def test_a_role_that_is_starting_processes_leaves_none_and_no_memory() -> None:
    word = f"of-a-test-{os.getpid()}"
    process = start_forking(word)
    try:
        while len(memory_of(word)) < 10:
            assert process.poll() is None
        start_of = start_ticks(process.pid)
        assert start_of is not None
        kill_all([(process.pid, start_of)])
        process.wait()
        assert processes_of(word) == []
        assert memory_of(word) == []
    finally:
        remove_all_of(word)


def test_what_a_process_left_is_found_once_nobody_uses_it(model: Path) -> None:
    process, memory = start(model)
    try:
        assert not {*map(str, memory)} & {*unused_shared_memory()}
        process.kill()
        process.wait()
        assert {*map(str, memory)} <= {*unused_shared_memory()}
        assert str(model) not in unused_shared_memory()
    finally:
        for path in memory:
            path.unlink()
