"""The limit of the replacements of roles, and a note of each replacement that was begun."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from rlstack.orchestration.roles import Role, RoleError, RoleLost

Note = Callable[[dict[str, object]], None]
Say = Callable[[str], object]
Settle = Callable[[Sequence[Role[object]]], Sequence[str]]


@dataclass(slots=True)
class _Replacement:
    begun_s: float  # of time.monotonic
    step: int  # the last one that was done
    has_failed: bool = False


class Restarts:
    """Counts the replacements that this process of the run has begun, of any role. From any thread.

    A replacement counts for `window_s`, and until the run has done a step more than it had when the role was
    lost: a fault that comes back at one step ends the run, however long each replacement takes.
    """

    def __init__(
        self,
        max_restarts: int,
        note: Note = lambda row: None,
        *,
        window_s: float | None = None,
        step: Callable[[], int] = lambda: 0,
        say: Say = lambda text: None,
        settle: Settle = lambda roles: (),
    ) -> None:
        """note: gets what restarts.jsonl has of it, but for the step, once the time that it took is known.

        window_s: recovery.window_s; None: every replacement counts until the end.
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
        self._window_s = window_s
        self._counted: list[_Replacement] = []
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
        replacement = self._count_in(lost)
        row: dict[str, object] = {
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
                replacement.has_failed = bool(row["failed"])
                self._note(row)

    def _count_in(self, lost: RoleLost) -> _Replacement:
        with self._lock:
            if lost.exception is not None:
                raised = (self._step(), lost.exception)
                if raised in self._raised:
                    raise self._raised_again(lost, raised[0]) from lost
                self._raised.add(raised)
            now_s, step = time.monotonic(), self._step()
            self._counted = [each for each in self._counted if self._counts(each, now_s, step)]
            if len(self._counted) >= self._max:
                raise self._spent(lost) from lost
            replacement = _Replacement(now_s, step)
            self._counted.append(replacement)
            return replacement

    def _counts(self, replacement: _Replacement, now_s: float, step: int) -> bool:
        is_recent = self._window_s is None or now_s - replacement.begun_s < self._window_s
        return is_recent or step <= replacement.step

    def _spent(self, lost: RoleLost) -> RoleError:
        allowed = "1 role" if self._max == 1 else f"{self._max} roles"
        limit = f"{allowed} (recovery.max_restarts)"
        if self._window_s is not None:
            limit = f"{allowed} within {self._window_s:g} s (recovery.max_restarts, recovery.window_s)"
        done, num_failed = f"has: {len(self._counted)}", sum(each.has_failed for each in self._counted)
        if num_failed:
            done = f"has tried to: {len(self._counted)}, of which {num_failed} failed"
        return RoleError(f"{lost.reason} (its log: {lost.role.log}); the run may replace {limit}, and {done}")

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
