"""Start processes that each give one result, and end as soon as one of them fails."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Sequence
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from multiprocessing.queues import Queue
from typing import Any

Results = Queue  # of what the processes give

_POLL_S = 0.2


def results_of(
    calls: Sequence[tuple[Callable[..., None], tuple[Any, ...]]], *, timeout_s: float
) -> list[Any]:
    """Items that the functions put into the queue, their last argument, in the order of coming.

    Exits with a message if one of them fails, or if they take longer than `timeout_s`.
    """
    context = get_context("spawn")
    results: Queue[Any] = context.Queue()
    processes = [context.Process(target=call, args=(*arguments, results)) for call, arguments in calls]
    for process in processes:
        process.start()
    try:
        found = _collect(results, processes, time.monotonic() + timeout_s)
        for process in processes:
            process.join(timeout_s)
        return found
    finally:
        for process in processes:
            process.kill()


def _collect(results: Queue[Any], processes: Sequence[BaseProcess], deadline: float) -> list[Any]:
    found: list[Any] = []
    while len(found) < len(processes):
        try:
            found.append(results.get(timeout=_POLL_S))
        except queue.Empty:
            if failed := [process.exitcode for process in processes if process.exitcode]:
                raise SystemExit(f"a process ended with exit status {failed[0]}") from None
            if time.monotonic() > deadline:
                raise SystemExit("the processes did not end within the limit") from None
    return found
