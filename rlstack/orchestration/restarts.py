"""How many roles a run may replace, and a note of each that it has tried to replace."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rlstack.orchestration.roles import Role, RoleError, RoleLost

Note = Callable[[dict[str, Any]], None]
Say = Callable[[str], object]
Settle = Callable[[Sequence[Role[object]]], Sequence[str]]


class Restarts:
    """Counts over the whole run, whatever is replaced. From any thread."""

    def __init__(
        self,
        max_restarts: int,
        note: Note = lambda row: None,
        *,
        step: Callable[[], int] = lambda: 0,
        say: Say = lambda text: None,
        settle: Settle = lambda roles: (),
    ) -> None:
        """note: gets what restarts.jsonl has of it, but for the step, once the time that it took is known.

        step: the last one that was done.
        say: gets a line when a replacement begins.
        settle: RoleHomes.settle.
        """
        self._max = max_restarts
        self._note = note
        self._step = step
        self._say = say
        self._settle = settle
        self._lock = threading.Lock()
        self._count = 0
        self._num_failed = 0
        self._raised: set[tuple[int, str]] = set()  # exceptions of Python, each with the step after which

    @contextmanager
    def replacing(self, lost: RoleLost, roles: Sequence[Role[object]] = ()) -> Iterator[None]:
        """Within, what was lost is replaced; the time of that is noted, and whether it has failed.

        roles: those that are replaced, with homes on living nodes once the context is entered; by default
            only the one that was lost.

        Raises RoleError, before anything is done, if that was one too many, or if it was an exception that
        has been raised before at this step: the next process would raise it too. NodeLost if a node was
        lost, and no other one can take what was there.
        """
        self._count_in(lost)
        row: dict[str, Any] = {
            "role": lost.role.name,
            "node": lost.role.home.address or None,
            "reason": lost.reason,
        }
        row |= {"moved_to": None, "error": None}
        started = time.monotonic()
        try:
            moved = ", ".join(self._settle(roles or [lost.role]))
            row["moved_to"] = moved or None
            where = f" on {moved or row['node']}" if moved or row["node"] else ""
            self._say(f"{lost.role.title} was lost: {lost.reason}; starting another one{where}")
            yield
        except BaseException as error:
            row["error"] = _in_a_line(error)
            raise
        finally:
            row |= {"seconds": round(time.monotonic() - started, 3), "failed": row["error"] is not None}
            with self._lock:
                self._num_failed += bool(row["failed"])
                self._note(row)

    def _count_in(self, lost: RoleLost) -> None:
        with self._lock:
            if lost.exception is not None:
                raised = (self._step(), lost.exception)
                if raised in self._raised:
                    raise self._raised_again(lost, raised[0]) from lost
                self._raised.add(raised)
            if self._count >= self._max:
                raise self._spent(lost) from lost
            self._count += 1

    def _spent(self, lost: RoleLost) -> RoleError:
        allowed = "1 role" if self._max == 1 else f"{self._max} roles"
        done = f"has: {self._count}"
        if self._num_failed:
            done = f"has tried to: {self._count}, of which {self._num_failed} failed"
        return RoleError(
            f"{lost.reason} (its log: {lost.role.log}); the run may replace {allowed} "
            f"(recovery.max_restarts), and {done}"
        )

    @staticmethod
    def _raised_again(lost: RoleLost, step: int) -> RoleError:
        return RoleError(
            f"{lost.reason} (its log: {lost.role.log}); the process before it has raised the same after step "
            f"{step}, and another one would"
        )


def _in_a_line(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    return str(error).partition("\n")[0] or type(error).__name__
