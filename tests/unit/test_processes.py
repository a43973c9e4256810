"""Processes that are noted by one process and ended later, by their number and their start."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace

import psutil
import pytest
import ray

from rlstack.orchestration import processes
from rlstack.orchestration.processes import kill_all, own_processes, start_ticks, stop_growing

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


class Played:
    """Processes of which some start others until they are stopped, which takes `calls` calls."""

    def __init__(self, starts: dict[str, str], calls: int) -> None:
        self.starts, self.calls = starts, calls
        self.there, self.called = ["role"], dict[str, int]()

    def look(self) -> list[str]:
        listed = [*self.there]
        for name in listed:
            started = self.starts.get(name)
            if started is not None and started not in self.there and self.called.get(name, 0) < self.calls:
                self.there.append(started)
        return listed

    def stop(self, name: str) -> bool:
        self.called[name] = self.called.get(name, 0) + 1
        return self.called[name] >= self.calls


@pytest.mark.parametrize("calls", [1, 3])
def test_what_is_started_between_the_look_and_the_stop_is_found(calls: int) -> None:
    played = Played({"role": "engine", "engine": "worker"}, calls)
    found: dict[str, None] = {}
    stop_growing(found, look=played.look, stop=played.stop, goes_on=lambda: True)
    assert [*found] == ["role", "engine", "worker"] == played.there
    assert all(times >= calls for times in played.called.values())


def test_one_that_cannot_be_stopped_is_not_waited_for_without_end() -> None:
    played = Played({"role": "engine"}, calls=1000)
    goes_on = iter([True, True, False]).__next__
    found: dict[str, None] = {}
    stop_growing(found, look=played.look, stop=played.stop, goes_on=goes_on)
    assert [*found] == ["role", "engine"]
    assert played.called == {"role": 2, "engine": 1}


def test_a_process_that_ends_meanwhile_is_not_waited_for(
    child: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def look(process: psutil.Process) -> list[psutil.Process]:
        looks.append(process)
        if len(looks) == 2:
            child.kill()
            child.wait()
        return [process]

    looks: list[psutil.Process] = []
    monkeypatch.setattr(processes, "_tree", look)
    start = start_ticks(child.pid)
    assert start is not None
    kill_all([(child.pid, start)])
    assert len(looks) <= 4


def test_ctrl_c_while_a_process_is_stopped_leaves_none_that_is(
    child: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(process: psutil.Process) -> bool:
        process.suspend()
        raise KeyboardInterrupt

    monkeypatch.setattr(processes, "_stop", interrupted)
    start = start_ticks(child.pid)
    assert start is not None
    with pytest.raises(KeyboardInterrupt):
        kill_all([(child.pid, start)])
    assert child.wait(10) == -9
