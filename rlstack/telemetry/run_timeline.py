"""The timeline of a run: what every process has done, in timeline.jsonl, and what each step comes to."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from pathlib import Path

from rlstack.telemetry import timeline
from rlstack.telemetry.curves import read_rows
from rlstack.telemetry.occupancy import Occupancy
from rlstack.telemetry.shares import step_shares
from rlstack.telemetry.timeline import CONTROLLER, Span
from rlstack.telemetry.waiting import account

STEP = "step"  # the phase of the controller in which all others of a step lie
BETWEEN = (
    "between_steps"  # before the first step, after the last one, and where a step does not follow another
)


class RunTimeline:
    """Takes the spans of this process, where those of all roles arrive, and appends them to a file.

    The controller's time is one lap after the other; a lap is a step, or lies outside the steps.
    """

    def __init__(self, path: Path) -> None:
        timeline.take()  # what this process did before is no part of the run
        self._file = path.open("a", encoding="utf-8")
        self._lap_starts = [timeline.now_s()]
        self._lap_steps: list[int | None] = []
        self._last_end_s: dict[str, float] = {}  # of what is known of each role
        self.occupancy: dict[str, Occupancy] = {}  # of each role, from the run's start to the last lap's end

    def lap(self, step: int | None) -> dict[str, float]:
        """End the lap that was `step`, None outside the steps, and write its spans; its shares.step_shares.

        What a role has not reported yet is counted as going on since its last report.
        """
        start_s, end_s = self._lap_starts[-1], timeline.now_s()
        self._lap_starts.append(end_s)
        self._lap_steps.append(step)
        spans = timeline.take()
        going_on = list(self._going_on(spans))
        own = Span(CONTROLLER, BETWEEN if step is None else STEP, start_s, end_s)
        self._write([own, *spans])
        accounted = account([own, *spans, *going_on], start_s, end_s, roles=self.occupancy)
        for role, pieces in accounted.items():
            before = Occupancy(idle_s=start_s - self._lap_starts[0])  # when nothing was known of it
            self.occupancy.setdefault(role, before).add(pieces)
        return step_shares(accounted)

    def close(self) -> None:
        """End the last lap, which is outside the steps, and the file."""
        self.lap(None)
        self._file.close()

    def _going_on(self, ended: Iterable[Span]) -> Iterator[Span]:
        for span in ended:
            self._last_end_s[span.role] = max(self._last_end_s.get(span.role, 0.0), span.end_s)
        for span in timeline.going_on():
            if span.role == CONTROLLER:
                yield span
            else:
                yield span._replace(start_s=max(span.start_s, self._last_end_s.get(span.role, 0.0)))

    def _write(self, spans: Iterable[Span]) -> None:
        rows = (span._replace(step=self._step_at(span.start_s)) for span in spans)
        self._file.writelines(json.dumps(_row(span)) + "\n" for span in rows)
        self._file.flush()

    def _step_at(self, time_s: float) -> int | None:
        lap = bisect_right(self._lap_starts, time_s) - 1
        return self._lap_steps[lap] if 0 <= lap < len(self._lap_steps) else None


def read_timeline(path: Path) -> Iterator[Span]:
    """The spans of a timeline.jsonl, in the order in which they became known.

    Raises:
        OSError: the file cannot be read.
    """
    return (Span(**row) for row in read_rows(path))


def laps(spans: Iterable[Span]) -> list[Span]:
    """The controller's laps, in order; they follow each other without a gap."""
    return [span for span in spans if span.role == CONTROLLER and span.phase in (STEP, BETWEEN)]


def _row(span: Span) -> dict[str, object]:
    """Times to the microsecond."""
    return {
        "role": span.role,
        "phase": span.phase,
        "step": span.step,
        "start_s": round(span.start_s, 6),
        "end_s": round(span.end_s, 6),
        "reason": span.reason,
    }
