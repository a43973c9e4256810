"""The processes of a role, on whichever node they are, and their certain end."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, NamedTuple

import psutil
import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from rlstack.orchestration.shared_memory import removing_shared_memory

KILL_TIMEOUT_S = 20.0
SAME_S = 1.0  # a process that began later than this is another one with the same number


class Processes(NamedTuple):
    """A process first, then what was below it; each by its number and the time at which it began."""

    node: str  # Ray's name for it
    members: tuple[tuple[int, float], ...]


def own_processes() -> Processes:
    """This process, in a Ray actor, and all below it."""
    me = psutil.Process(os.getpid())
    members = tuple((each.pid, each.create_time()) for each in (me, *me.children(recursive=True)))
    return Processes(ray.get_runtime_context().get_node_id(), members)


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
    members: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for processes in roles:
        members[processes.node] += processes.members
    with ThreadPoolExecutor(max_workers=max(len(members), 1)) as pool:
        for node, of_node in members.items():
            pool.submit(end_processes, Processes(node, tuple(of_node)))


def kill_all(members: Iterable[tuple[int, float]]) -> None:
    """SIGKILL for processes of this host, and for what is below them; their shared memory goes too."""
    roots = [process for pid, began in members if (process := _same(pid, began)) is not None]
    doomed = {process.pid: process for root in roots for process in _tree(root)}.values()
    with removing_shared_memory([process.pid for process in doomed]):
        for process in doomed:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        deadline = time.monotonic() + KILL_TIMEOUT_S
        for process in doomed:
            _await_end(process, deadline)


def _same(pid: int, began: float) -> psutil.Process | None:
    try:
        process = psutil.Process(pid)
        return process if abs(process.create_time() - began) < SAME_S else None
    except psutil.NoSuchProcess:
        return None


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
