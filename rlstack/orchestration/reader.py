"""Takes what one engine answers, as it comes, whatever the rest of the driver is doing."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")

JOIN_S = 5.0
Finished = Sequence[tuple[int, T]]  # results with the places of what they answer


class Reader:
    """A thread that goes through streamed calls, one after the other, and fulfils their futures.

    After the first failure everything fails with it: the engine works through its calls in their order.
    """

    def __init__(self, name: str) -> None:
        self._calls: queue.SimpleQueue[tuple[Callable[[], Iterable[Finished[Any]]], list[Future[Any]]] | None]
        self._calls = queue.SimpleQueue()
        self._is_open = True
        self._thread = threading.Thread(target=self._run, name=f"reader of {name}", daemon=True)
        self._thread.start()

    def is_open(self) -> bool:
        """Whether anyone still wants results."""
        return self._is_open

    def read(self, call: Callable[[], Iterable[Finished[T]]], num_results: int) -> list[Future[T]]:
        """Futures of the results 0 to num_results - 1; `call` is made in the thread, when its turn comes.

        What waits on a future by add_done_callback runs in the thread, and must not take long.
        """
        futures: list[Future[T]] = [Future() for _ in range(num_results)]
        self._calls.put((call, futures))
        return futures

    def close(self) -> None:
        """End the thread; results that are not there yet will not come."""
        self._is_open = False
        self._calls.put(None)
        self._thread.join(JOIN_S)

    def _run(self) -> None:
        failure: BaseException | None = None
        while (entry := self._calls.get()) is not None:
            call, futures = entry
            if failure is None and self._is_open:
                failure = self._fulfil(call, futures)
            for future in futures:
                if failure is not None and not future.done():
                    future.set_exception(failure)
                future.cancel()  # one that nobody waits for any more

    def _fulfil(
        self, call: Callable[[], Iterable[Finished[Any]]], futures: Sequence[Future[Any]]
    ) -> BaseException | None:
        try:
            for finished in call():
                for place, result in finished:
                    futures[place].set_result(result)
            if self._is_open and not all(future.done() for future in futures):
                raise RuntimeError("a call ended without all of its results")
        except BaseException as error:
            return error
        return None
