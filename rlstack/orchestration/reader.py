"""Takes what one engine answers, as it comes, whatever the rest of the driver is doing."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")

JOIN_S = 5.0
Finished = Sequence[tuple[int, T]]  # results with the places of what they answer


class _Call(NamedTuple):
    make: Callable[[], Iterable[Finished[Any]]]
    results: Sequence[Future[Any]]


class Reader:
    """A thread that goes through streamed calls, one after the other, and fulfils their futures.

    It ends with the first failure, for the engine works through its calls in their order; what is not there
    by then stays open, for another reader to fulfil.
    """

    def __init__(self, name: str) -> None:
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._is_open = True
        self.failure: BaseException | None = None  # what a call failed with
        self._thread = threading.Thread(target=self._run, name=f"reader of {name}", daemon=True)
        self._thread.start()

    def is_open(self) -> bool:
        """Whether anyone still wants results."""
        return self._is_open

    def read(self, make: Callable[[], Iterable[Finished[T]]], results: Sequence[Future[T]]) -> None:
        """Fulfil `results`, by their places, from the call that `make` gives when its turn comes.

        What waits on a future by add_done_callback runs in the thread, and must not take long.
        """
        self._calls.put(_Call(make, results))

    def close(self) -> None:
        """End the thread; results that are not there yet do not come from it any more."""
        self._is_open = False
        self._calls.put(None)
        self._thread.join(JOIN_S)

    def _run(self) -> None:
        while self._is_open and (call := self._calls.get()) is not None:
            try:
                self._fulfil(call)
            except BaseException as error:
                self.failure = error
                return

    def _fulfil(self, call: _Call) -> None:
        for finished in call.make():
            for place, result in finished:
                if not self._is_open:
                    return
                call.results[place].set_result(result)
        if self._is_open and not all(result.done() for result in call.results):
            raise RuntimeError("a call ended without all of its results")
