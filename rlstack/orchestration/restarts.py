"""How many roles a run may replace, and a note of each that it has."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rlstack.orchestration.role_errors import RoleError, RoleLost

Note = Callable[[dict[str, Any]], None]


class Restarts:
    """Counts over the whole run, whatever is replaced. From any thread."""

    def __init__(
        self, max_restarts: int, note: Note = lambda row: None, *, step: Callable[[], int] = lambda: 0
    ) -> None:
        """note: gets what restarts.jsonl has of it, but for the step, once the time that it took is known.

        step: the last one that was done.
        """
        self._max = max_restarts
        self._note = note
        self._step = step
        self._lock = threading.Lock()
        self._count = 0
        self._raised: set[tuple[int, str]] = set()  # exceptions of Python, each with the step after which

    @contextmanager
    def replacing(self, lost: RoleLost) -> Iterator[None]:
        """Within, what was lost is replaced; the time of that is noted.

        Raises RoleError, before anything is done, if that was one too many, or if it was an exception that
        has been raised before at this step: the next process would raise it too.
        """
        with self._lock:
            if lost.exception is not None:
                raised = (self._step(), lost.exception)
                if raised in self._raised:
                    raise self._raised_again(lost, raised[0]) from lost
                self._raised.add(raised)
            if self._count >= self._max:
                raise self._spent(lost) from lost
            self._count += 1
        started = time.monotonic()
        try:
            yield
        finally:
            seconds = round(time.monotonic() - started, 3)
            with self._lock:
                self._note({"role": lost.role.name, "reason": lost.reason, "seconds": seconds})

    def _spent(self, lost: RoleLost) -> RoleError:
        allowed = "1 role" if self._max == 1 else f"{self._max} roles"
        return RoleError(
            f"{lost.reason} (its log: {lost.role.log}); the run may replace {allowed} "
            f"(recovery.max_restarts), and has: {self._count}"
        )

    @staticmethod
    def _raised_again(lost: RoleLost, step: int) -> RoleError:
        return RoleError(
            f"{lost.reason} (its log: {lost.role.log}); the process before it has raised the same after step "
            f"{step}, and another one would"
        )
