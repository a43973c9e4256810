"""Ctrl-C and SIGTERM while a run trains: time to save it first, but no longer than is allowed."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupts:
    """Between defer() and settle() the first signal is noted in `is_asked`; any other one raises at once.

    What is raised is KeyboardInterrupt, in the main thread. Python takes signals there alone: in another
    thread all of this does nothing.
    """

    def __init__(self, limit_s: float) -> None:
        """limit_s: how long after the first signal, in seconds, KeyboardInterrupt is raised in any case."""
        self.is_asked = False
        self._limit_s = limit_s
        self._note: Callable[[str], object] | None = None  # where signals are deferred
        self._is_over = threading.Event()

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Take this process's signals within; those that it ignores, it goes on to ignore."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        taken = {n: handler for n, handler in before.items() if handler not in (None, signal.SIG_IGN)}
        for number in taken:
            signal.signal(number, self._take)
        try:
            yield
        finally:
            self._is_over.set()
            for number, handler in taken.items():
                signal.signal(number, handler)

    def defer(self, note: Callable[[str], object]) -> None:
        """Let the first signal wait from here on; `note` is told, by another thread."""
        self._note = note

    def settle(self) -> None:
        """End what defer() began. Raises KeyboardInterrupt if there was a signal."""
        self._note = None
        if self.is_asked:
            raise KeyboardInterrupt

    def _take(self, number: int, frame: FrameType | None) -> None:
        if self._note is None or self.is_asked:
            raise KeyboardInterrupt
        self.is_asked = True
        # In a thread: what this one was interrupted in may hold the lock of whatever `note` writes to.
        threading.Thread(target=self._watch, args=(number, self._note), daemon=True).start()

    def _watch(self, number: int, note: Callable[[str], object]) -> None:
        name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
        note(
            f"{name}: the step is finished and saved first, within {self._limit_s:g} s; Ctrl-C again ends "
            "the run at once"
        )
        if not self._is_over.wait(self._limit_s):
            note(f"this took longer than {self._limit_s:g} s (checkpoint.interrupt_timeout_s)")
            signal.pthread_kill(threading.main_thread().ident or 0, number)
