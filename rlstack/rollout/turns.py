"""Two threads that take turns with something that bears one at a time."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


class Turns:
    """One thread works for long and now and then gives way; the others have short errands.

    A lock alone would not do: who takes it again as soon as it is free keeps those who wait for it out.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._errands: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Hold off the errands of others, but for give_way()."""
        with self._lock:
            yield

    def give_way(self) -> None:
        """In at_work(): do the errands that wait."""
        while True:
            try:
                errand = self._errands.get_nowait()
            except queue.Empty:
                return
            errand()

    def do(self, errand: Callable[[], T]) -> T:
        """Have `errand` done, as soon as the one at work gives way or has ended, and return its result."""
        done: Future[T] = Future()
        self._errands.put(lambda: _fulfil(done, errand))
        while not done.done():
            # Whoever is at work does it, unless that one has just ended.
            if self._lock.acquire(timeout=0.01):
                try:
                    self.give_way()
                finally:
                    self._lock.release()
        return done.result()


def _fulfil(done: Future[T], errand: Callable[[], T]) -> None:
    try:
        done.set_result(errand())
    except BaseException as error:
        done.set_exception(error)
