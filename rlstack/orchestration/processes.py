"""The processes of a role, on whichever node they are, and their certain end."""

from __future__ import annotations

import os
import signal
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import psutil
import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from rlstack.orchestration.shared_memory import removing_shared_memory

KILL_TIMEOUT_S = 20.0
HALT_S = 2.0  # for processes to stop before they are killed; those that do not are killed all the same
START_FIELD = 19  # of /proc/PID/stat, counted from the state, the first field after the name
# Of a thread that starts nothing more: stopped, traced, or ended. One in vfork waits in D for its child,
# which is stopped before it has become another program.
HALTED = frozenset("TtZXD")

T = TypeVar("T")


class Processes(NamedTuple):
    """A process first, then what was below it; each by its number and its start, see start_ticks()."""

    node: str  # Ray's name for it
    members: tuple[tuple[int, int], ...]


def own_processes() -> Processes:
    """This process, in a Ray actor, and all below it."""
    me = psutil.Process(os.getpid())
    found = [(each.pid, start_ticks(each.pid)) for each in (me, *me.children(recursive=True))]
    members = tuple((pid, start) for pid, start in found if start is not None)
    return Processes(ray.get_runtime_context().get_node_id(), members)


def start_ticks(pid: int) -> int | None:
    """Clock ticks from the machine's boot to the start of process `pid` of this host; None: it has ended.

    Unlike a time of day it stays what it is when the clock is set.
    """
    try:
        return int(_stat(Path(f"/proc/{pid}"))[START_FIELD])
    except OSError:
        return None


def end_processes(processes: Processes) -> None:
    """Kill them and what is below them now, stopped ones too, and return when they have ended.

    What is on another node than this is killed by a task there; a node that is gone has taken them along.
    """
    if processes.node == ray.get_runtime_context().get_node_id():
        kill_all(processes.members)
        return
    remote: Any = ray.remote
    there = NodeAffinitySchedulingStrategy(processes.node, soft=False)
    call = remote(num_cpus=0)(kill_all).options(scheduling_strategy=there).remote(processes.members)
    with suppress(RayError, GetTimeoutError):
        ray.get(call, timeout=KILL_TIMEOUT_S)


def end_everywhere(roles: Iterable[Processes]) -> None:
    """As end_processes for each, on all nodes side by side."""
    members: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for processes in roles:
        members[processes.node] += processes.members
    with ThreadPoolExecutor(max_workers=max(len(members), 1)) as pool:
        for node, of_node in members.items():
            pool.submit(end_processes, Processes(node, tuple(of_node)))


def kill_all(members: Iterable[tuple[int, int]]) -> None:
    """SIGKILL for processes of this host, and for what is below them; their shared memory goes too.

    They are stopped first: what they started between the look at them and their end would stay.
    """
    roots = [process for pid, start in members if (process := _same(pid, start)) is not None]
    found: dict[psutil.Process, None] = {}
    deadline = time.monotonic() + HALT_S
    try:
        stop_growing(
            found,
            look=lambda: [process for root in roots for process in _tree(root)],
            stop=_stop,
            goes_on=lambda: time.monotonic() < deadline,
        )
    finally:  # also where Ctrl-C comes again: one that is stopped would stay for ever
        _kill([*reversed(found)])


def stop_growing(
    found: dict[T, None],
    *,
    look: Callable[[], Sequence[T]],
    stop: Callable[[T], bool],
    goes_on: Callable[[], bool],
) -> None:
    """Stop all that there is until there is nothing new; `found` gets them as they are found.

    There is nothing new once all that is there had been stopped before it was looked for.

    look: lists what is there, with a parent before its children; stop: whether one has been stopped, which
    may take several calls; goes_on: False ends it whatever there is.
    """
    stopped: set[T] = set()
    while True:
        listed = look()
        found |= dict.fromkeys(listed)
        if stopped.issuperset(listed) or not goes_on():
            return
        stopped = {each for each in listed if stop(each)}


def _kill(doomed: Sequence[psutil.Process]) -> None:
    """SIGKILL, one after the other, and wait until they have ended."""
    with removing_shared_memory([process.pid for process in doomed]):
        for process in doomed:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        deadline = time.monotonic() + KILL_TIMEOUT_S
        for process in doomed:
            _await_end(process, deadline)


def _stop(process: psutil.Process) -> bool:
    """Send SIGSTOP; whether all threads of the process have been reached by it, or it has ended."""
    try:
        process.send_signal(signal.SIGSTOP)
        threads = Path(f"/proc/{process.pid}/task").iterdir()
        return all(_stat(thread)[0] in HALTED for thread in threads)
    except psutil.NoSuchProcess:
        return True
    except (psutil.Error, OSError):
        return False  # a thread has ended, or the process has: seen when it is looked at again


def _stat(folder: Path) -> list[str]:
    """The fields of a process or a thread from its state on, after the name, which may hold anything."""
    stat = (folder / "stat").read_text(encoding="utf-8", errors="replace")
    return stat.rpartition(")")[2].split()


def _same(pid: int, start: int) -> psutil.Process | None:
    """The process that began at `start`; None if it has ended, and another one may have its number."""
    try:
        process = psutil.Process(pid)
    except psutil.NoSuchProcess:
        return None
    return process if start_ticks(pid) == start else None


def _tree(process: psutil.Process) -> list[psutil.Process]:
    try:
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return [process]


def _await_end(process: psutil.Process, deadline: float) -> None:
    """A zombie has ended: whoever started it has yet to ask how."""
    with suppress(psutil.NoSuchProcess):
        while process.status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
            time.sleep(0.01)
