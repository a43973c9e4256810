"""Several worker processes as one."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from rlstack.rewards.worker_process import WorkerProcess

Item = TypeVar("Item")
Result = TypeVar("Result")


class WorkerPool:
    """Gives each item to whichever process is free. Usable from any thread, also from several at once.

    Not built on a process pool of the standard library: those import the parent's main module again in every
    worker, which in a Ray actor is Ray's, exchange pickles, and none of them outlives a worker that dies
    between two tasks.
    """

    def __init__(self, processes: Sequence[WorkerProcess]) -> None:
        """Wait until the processes are ready.

        Raises:
            RuntimeError: one of them does not start; all have ended.
        """
        self._processes = processes
        self._free: queue.SimpleQueue[WorkerProcess] = queue.SimpleQueue()
        self._threads = ThreadPoolExecutor(len(processes), thread_name_prefix="rewards")
        try:
            for process in processes:
                process.wait_ready()
                self._free.put(process)
        except RuntimeError:
            self.close()
            raise

    def map(self, use: Callable[[WorkerProcess, Item], Result], items: Sequence[Item]) -> Iterable[Result]:
        """use(process, item) of every item, in the order of the items; one alone in the calling thread."""

        def with_a_process(item: Item) -> Result:
            process = self._free.get()
            try:
                return use(process, item)
            finally:
                self._free.put(process)

        return map(with_a_process, items) if len(items) == 1 else self._threads.map(with_a_process, items)

    def close(self) -> None:
        """End the processes at once; a `map` that still waits for one raises RuntimeError."""
        for process in self._processes:
            process.close()
        self._threads.shutdown(cancel_futures=True)
