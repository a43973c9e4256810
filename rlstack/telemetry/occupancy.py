"""From one role's spans to stretches of time, of which each moment has one. Pure.

At each moment a role is in one of three states, so that their seconds add up to the time that passed:

    busy      inside a span without a reason; of spans inside each other the one that began last counts
    waiting   inside a span with a reason, such as the pipeline bubble, or where waiting.py finds a reason
    idle      outside all spans, with nothing to wait for
"""

from __future__ import annotations

import heapq
import math
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import islice, pairwise
from typing import NamedTuple

from rlstack.telemetry.timeline import Span


class State(StrEnum):
    busy = "busy"
    waiting = "waiting"
    idle = "idle"


class Piece(NamedTuple):
    """A stretch of time of one role, in seconds on the run's clock."""

    start_s: float
    end_s: float
    state: State
    what: str  # the phase where busy, the reason where waiting, empty where idle


@dataclass(slots=True)
class Occupancy:
    """Seconds of one role; all of them together are the time that passed."""

    busy_s: dict[str, float] = field(default_factory=dict)  # by phase
    waiting_s: dict[str, float] = field(default_factory=dict)  # by reason
    idle_s: float = 0.0

    @classmethod
    def of(cls, pieces: Iterable[Piece]) -> Occupancy:
        """The pieces' seconds by state."""
        total = cls()
        for start_s, end_s, state, what in pieces:
            if state is State.idle:
                total.idle_s += end_s - start_s
                continue
            seconds = total.busy_s if state is State.busy else total.waiting_s
            seconds[what] = seconds.get(what, 0.0) + end_s - start_s
        return total

    def add(self, other: Occupancy) -> None:
        """Count the seconds of `other`, of the same role at another time, too."""
        self.idle_s += other.idle_s
        for mine, theirs in ((self.busy_s, other.busy_s), (self.waiting_s, other.waiting_s)):
            for what, seconds in theirs.items():
                mine[what] = mine.get(what, 0.0) + seconds

    @property
    def total_s(self) -> float:
        return math.fsum([*self.busy_s.values(), *self.waiting_s.values(), self.idle_s])


def cover(spans: Iterable[Span], start_s: float, end_s: float) -> list[Piece]:
    """One role's pieces from `start_s` to `end_s`, without gaps or overlaps; idle where there is no span.

    Of spans that overlap the one that began last counts; of those that began together, the first to end.
    """
    inside = [span for span in spans if max(span.start_s, start_s) < min(span.end_s, end_s)]
    coming = deque(sorted(inside, key=lambda span: span.start_s))
    edges = {min(max(time, start_s), end_s) for span in inside for time in (span.start_s, span.end_s)}
    pieces: list[Piece] = []
    going_on: list[tuple[float, float, int, Span]] = []  # a heap, with the span that counts on top
    for begin, end in pairwise(sorted({start_s, end_s, *edges})):
        while coming and coming[0].start_s <= begin:
            span = coming.popleft()
            heapq.heappush(going_on, (-span.start_s, span.end_s, len(coming), span))
        while going_on and going_on[0][1] <= begin:
            heapq.heappop(going_on)
        append(pieces, begin, end, *_state_of(going_on[0][3] if going_on else None))
    return pieces


def append(pieces: list[Piece], start_s: float, end_s: float, state: State, what: str) -> None:
    """Put a piece at the end, or lengthen the last one if nothing changes."""
    if pieces and pieces[-1][2:] == (state, what):
        start_s = pieces.pop().start_s
    pieces.append(Piece(start_s, end_s, state, what))


def within(pieces: Sequence[Piece], start_s: float, end_s: float) -> Iterator[Piece]:
    """Of pieces in order and apart those from `start_s` to `end_s`, cut at the edges."""
    first = bisect_right(pieces, start_s, key=lambda piece: piece.end_s)
    for piece in islice(pieces, first, None):
        if piece.start_s >= end_s:
            return
        yield piece._replace(start_s=max(piece.start_s, start_s), end_s=min(piece.end_s, end_s))


def _state_of(span: Span | None) -> tuple[State, str]:
    if span is None:
        return State.idle, ""
    return (State.busy, span.phase) if span.reason is None else (State.waiting, span.reason)
