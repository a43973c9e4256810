"""The clocks of the nodes against the driver's: what roles measure is moved to its time.

A call begins after it was made, and its result arrives after it was returned. So each call bounds how far its
role's clock is ahead of the driver's, from both sides; the quickest calls bound it best, to the milliseconds
that a message takes. What a role measured is kept until settle(), because the calls after it tell too, and is
moved by as little as the bounds demand: not at all where the clocks agree.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from rlstack.config.alarms import AlarmAction
from rlstack.telemetry import nvml, timeline
from rlstack.telemetry.alarms import Raised
from rlstack.telemetry.nvml import MAX_SAMPLES, Sample
from rlstack.telemetry.timeline import MAX_SPANS, Buffer, Span

DRIFT = 5e-4  # seconds by which two clocks part in a second at most: the kernel's limit for adjusting one
MAX_OFFSET_S = 0.1  # of a node's clock, above which people are told
REMEDY = "set the clocks of all nodes by NTP (chronyc tracking, or timedatectl, shows how one is set)"


class Reading(NamedTuple):
    """When a call was made, by the driver's clock, and when it began and returned, by its role's."""

    node: str  # address of the role's
    asked_s: float | None  # None: not the first result of the call
    begun_s: float
    done_s: float
    dropped_spans: int = 0  # by the role's process since its start


class RoleClock:
    """How far the clock of one process of a role is ahead of the driver's; from any thread."""

    def __init__(self, role: str) -> None:
        self._role = role
        self._least_s, self._most_s = -math.inf, math.inf  # bounds of the offset at the time `_at_s`
        self._at_s = -math.inf
        self._lock = threading.Lock()

    def read(self, reading: Reading, received_s: float) -> None:
        """Take the bounds of a call whose result arrived at `received_s` by the driver's clock."""
        least_s = reading.done_s - received_s
        most_s = math.inf if reading.asked_s is None else reading.begun_s - reading.asked_s
        with self._lock:
            drift_s = DRIFT * max(received_s - self._at_s, 0.0)
            least_s, most_s = sorted((least_s, most_s))
            known = max(least_s, self._least_s - drift_s), min(most_s, self._most_s + drift_s)
            # A clock that was set meanwhile, as where a machine was suspended, is known by this call alone.
            self._least_s, self._most_s = known if known[0] <= known[1] else (least_s, most_s)
            self._at_s = received_s
        _offsets[self._role] = reading.node, self.offset_s
        timeline.report_dropped(self._role, reading.dropped_spans)

    @property
    def offset_s(self) -> float:
        """Seconds by which the role's clock is ahead, below 0 where it is behind; 0 before the first call."""
        with self._lock:
            return min(max(0.0, self._least_s), self._most_s)


_offsets: dict[str, tuple[str, float]] = {}  # by role, with its node
_spans = Buffer[tuple[RoleClock, Span]](MAX_SPANS)
_samples: deque[tuple[RoleClock, Sample]] = deque(maxlen=MAX_SAMPLES)


def offsets() -> dict[str, float]:
    """How far the clock of each node that has roles is ahead of the driver's, in seconds, as last known."""
    found: dict[str, float] = {}
    for node, offset_s in list(_offsets.values()):
        found[node] = max(found.get(node, 0.0), offset_s, key=abs)
    return found


def forget() -> None:
    """Know of no clock any more, before a run, and of nothing that was measured."""
    _offsets.clear()
    _spans.take()
    _samples.clear()


def keep(clock: RoleClock, spans: Iterable[Span], samples: Iterable[Sample]) -> None:
    """Keep what a role has measured by its `clock` until settle(). From any thread."""
    _spans.add((clock, span) for span in spans)
    _samples.extend((clock, sample) for sample in samples)


def settle() -> None:
    """Move what is kept to the driver's time, as the clocks are known now, and hand it to the timeline."""
    timeline.add(_moved(clock, span) for clock, span in _spans.take())
    for clock, sample in [_samples.popleft() for _ in range(len(_samples))]:
        nvml.add([sample._replace(time_s=sample.time_s - clock.offset_s)])


def num_dropped() -> int:
    """Spans that were lost in this process and in the roles that have reported to it."""
    return _spans.num_dropped + timeline.num_dropped()


def _moved(clock: RoleClock, span: Span) -> Span:
    return span._replace(start_s=span.start_s - clock.offset_s, end_s=span.end_s - clock.offset_s)


class ClockAlarms:
    """Says once of each node that its clock is more than MAX_OFFSET_S away from the driver's."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def update(self, step: int) -> list[Raised]:
        """The alarms that `step` raises."""
        return list(self._new(step))

    def _new(self, step: int) -> Iterator[Raised]:
        for node, offset_s in offsets().items():
            if abs(offset_s) <= MAX_OFFSET_S or node in self._told:
                continue
            self._told.add(node)
            where = "ahead of" if offset_s > 0 else "behind"
            yield Raised(
                step=step,
                alarm="clocks",
                action=AlarmAction.warn,
                reason=f"the clock of node {node} is {abs(offset_s):.2f} s {where} the driver's; the "
                f"timeline is corrected for it, the times in its logs are not: {REMEDY}",
                lr_factor=1.0,
            )
