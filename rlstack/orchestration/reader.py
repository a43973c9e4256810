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

    After the first failure everything fails with it: the engine works through its calls in their order.
    """

    def __init__(self, name: str) -> None:
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._is_open = True
        self._thread = threading.Thread(target=self._run, name=f"reader of {name}", daemon=True)
        self._thread.start()

    def is_open(self) -> bool:
        """Whether anyone still wants results."""
        return self._is_open

    def read(self, make: Callable[[], Iterable[Finished[T]]], num_results: int) -> list[Future[T]]:
        """Futures of the results 0 to num_results - 1 of a call, which `make` gives when its turn comes.

        What waits on a future by add_done_callback runs in the thread, and must not take long.
        """
        results: list[Future[T]] = [Future() for _ in range(num_results)]
        self._calls.put(_Call(make, results))
        return results

    def close(self) -> None:
        """End the thread; results that are not there yet will not come."""
        self._is_open = False
        self._calls.put(None)
        self._thread.join(JOIN_S)

    def _run(self) -> None:
        failure: BaseException | None = None
        while (call := self._calls.get()) is not None:
            if failure is None and self._is_open:
                failure = self._fulfil(call)
            for result in call.results:
                if failure is not None and not result.done():
                    result.set_exception(failure)
                result.cancel()  # one that nobody waits for any more

    def _fulfil(self, call: _Call) -> BaseException | None:
        """What the call failed with."""
        try:
            for finished in call.make():
                for place, result in finished:
                    call.results[place].set_result(result)
            if self._is_open and not all(result.done() for result in call.results):
                raise RuntimeError("a call ended without all of its results")
        except BaseException as error:
            return error
        return None
