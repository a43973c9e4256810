"""What the processes of a run do, as spans on one clock.

Any code of any process notes what it does with `with span("forward"):`. The driver of a run is the
controller; any other process has been told which role it is, and its spans travel to the driver with the
results of what it was asked for. There everything comes together.

The clock is UNIX time in seconds. A process reads it once and counts on from there with its monotonic clock,
so that a span never ends before it began. What comes from a process whose clock is another than the driver's
is moved to the driver's (clocks.py).
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import count
from types import TracebackType
from typing import Generic, NamedTuple, TypeVar

CONTROLLER = "controller"
MAX_SPANS = 200_000  # that wait to be taken in a process; the oldest are dropped, and counted, beyond it

Mark = Callable[[str], AbstractContextManager[object]]  # by the phase's name, around it

_EPOCH_S = time.time() - time.perf_counter()


class Span(NamedTuple):
    """Something that a role did, or waited for, from `start_s` to `end_s` on the run's clock."""

    role: str
    phase: str
    start_s: float
    end_s: float
    reason: str | None = None  # what was waited for; None: busy
    step: int | None = None  # of the controller when it began; None outside the steps, or not known yet


_Item = TypeVar("_Item")


class Buffer(Generic[_Item]):
    """Items that wait to be taken, at most `most`: beyond it the oldest are dropped. From any thread."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._items: deque[_Item] = deque()
        self._lock = threading.Lock()
        self.num_dropped = 0  # since the start of the process

    def add(self, items: Iterable[_Item]) -> None:
        """Append the items."""
        with self._lock:
            self._items.extend(items)
            while len(self._items) > self._most:
                self._items.popleft()
                self.num_dropped += 1

    def take(self) -> list[_Item]:
        """Remove and return what waits, the oldest first."""
        with self._lock:
            items = list(self._items)
            self._items.clear()
            return items


class _Process:
    """What this process keeps; it is not carried into those that it starts."""

    def __init__(self) -> None:
        self.role = CONTROLLER
        self.done = Buffer[Span](MAX_SPANS)
        self.dropped_elsewhere: dict[str, int] = {}  # by role, as it has reported
        self.open: dict[int, Span] = {}  # what goes on; its end is its start
        self.numbers = count()
        self.mark: Mark | None = None


_process = _Process()


def now_s() -> float:
    """Seconds since 1970; never goes back within a process."""
    return _EPOCH_S + time.perf_counter()


def act_as(role: str) -> None:
    """Say what role this process has, before its first span."""
    _process.role = role


def mark_with(mark: Mark | None) -> None:
    """Have the spans of this process entered in another tool's record too, NVTX's or a profiler's."""
    _process.mark = mark


@contextmanager
def marked_with(mark: Mark) -> Iterator[None]:
    """As `mark_with`, for as long as the context lasts."""
    before, _process.mark = _process.mark, mark
    try:
        yield
    finally:
        _process.mark = before


class span:
    """A context whose duration becomes a Span of this process, also where it is left by an exception.

    Args:
        phase: what is done.
        reason: what is waited for, if this is a wait.
        role: another than this process's, whose work is measured here.
    """

    __slots__ = ("_key", "_mark", "_phase", "_reason", "_role")

    def __init__(self, phase: str, *, reason: str | None = None, role: str | None = None) -> None:
        self._phase, self._reason, self._role = phase, reason, role

    def __enter__(self) -> None:
        self._key = _begin(self._role or _process.role, self._phase, self._reason)
        self._mark = _process.mark(self._phase) if _process.mark is not None else None
        if self._mark is not None:
            self._mark.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._mark is not None:
            self._mark.__exit__(kind, error, trace)
        _process.done.add((_process.open.pop(self._key)._replace(end_s=now_s()),))


@contextmanager
def asked(role: str, phase: str) -> Iterator[None]:
    """Let going_on() know of what `role` has been asked for and will report itself."""
    key = _begin(role, phase, None)
    try:
        yield
    finally:
        del _process.open[key]


def add(spans: Iterable[Span]) -> None:
    """Keep spans that were measured elsewhere."""
    _process.done.add(spans)


def take() -> list[Span]:
    """What has ended since the last call, in the order in which it ended; each span is taken once."""
    return _process.done.take()


def num_dropped() -> int:
    """Spans that this process, and the roles that have reported to it, have lost since their start."""
    return _process.done.num_dropped + sum(_process.dropped_elsewhere.values())


def report_dropped(role: str, count: int) -> None:
    """Note that the process of `role` has lost `count` spans since its start."""
    _process.dropped_elsewhere[role] = count


def going_on() -> list[Span]:
    """What has begun and not ended, as if it ended now."""
    end_s = now_s()
    return [begun._replace(end_s=end_s) for begun in list(_process.open.values())]


def _begin(role: str, phase: str, reason: str | None) -> int:
    key, start_s = next(_process.numbers), now_s()
    _process.open[key] = Span(role, phase, start_s, start_s, reason)
    return key
