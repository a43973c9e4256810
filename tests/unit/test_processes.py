"""Processes that are noted by one process and ended later, by their number and their start."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace

import psutil
import pytest
import ray

from rlstack.orchestration.processes import kill_all, own_processes, start_ticks

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


@pytest.fixture
def child(monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen[bytes]]:
    context = SimpleNamespace(get_node_id=lambda: "here")
    monkeypatch.setattr(ray, "get_runtime_context", lambda: context)
    process = subprocess.Popen(SLEEP)
    yield process
    process.kill()
    process.wait()


def test_a_noted_process_is_ended_after_the_clock_was_set(
    child: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    noted = own_processes()
    began = psutil.Process.create_time
    monkeypatch.setattr(psutil.Process, "create_time", lambda self: began(self) + 3600.0)
    kill_all([member for member in noted.members if member[0] == child.pid])
    assert child.wait(10) == -9


def test_another_process_with_the_same_number_is_left_alone(child: subprocess.Popen[bytes]) -> None:
    start = start_ticks(child.pid)
    assert start is not None
    kill_all([(child.pid, start - 1)])
    assert child.poll() is None


def test_a_process_that_has_ended_has_no_start() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert start_ticks(process.pid) is None
