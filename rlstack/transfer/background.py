"""One call in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import Generic, TypeVar

T = TypeVar("T")


class Background(Generic[T]):
    """Starts `call` at once. Unlike an executor's threads, this one does not keep the process alive."""

    def __init__(self, call: Callable[[], T], *, name: str) -> None:
        self._future: Future[T] = Future()
        threading.Thread(target=self._run, args=(call,), name=name, daemon=True).start()

    def is_done(self) -> bool:
        """Whether it has returned or raised."""
        return self._future.done()

    def wait(self) -> None:
        """Wait for the call, however it ends."""
        wait([self._future])

    def result(self, timeout_s: float | None = None) -> T:
        """Wait for the call; its value, or its exception raised. Raises TimeoutError after `timeout_s`."""
        return self._future.result(timeout_s)

    def _run(self, call: Callable[[], T]) -> None:
        try:
            self._future.set_result(call())
        except BaseException as error:  # it belongs to whoever asks for the result
            self._future.set_exception(error)
