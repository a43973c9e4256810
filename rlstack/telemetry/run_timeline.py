"""The timeline of a run, on file: what every process has done, how its GPUs were, what a step comes to."""

from __future__ import annotations

import json
import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rlstack.files import naming
from rlstack.telemetry import clocks, nvml, timeline
from rlstack.telemetry.curves import read_rows
from rlstack.telemetry.energy import energy_by_kind
from rlstack.telemetry.log_files import GPUS, TIMELINE
from rlstack.telemetry.nvml import Sample
from rlstack.telemetry.occupancy import Occupancy
from rlstack.telemetry.shares import sampling_s, step_shares
from rlstack.telemetry.timeline import CONTROLLER, Span
from rlstack.telemetry.waiting import account

STEP = "step"  # the phase of the controller in which all others of a step lie
BETWEEN = "between_steps"  # as before the first and after the last one


class RunTimeline:
    """Takes the spans of this process, where those of all roles arrive, and appends them to timeline.jsonl.

    Samples of GPUs go to gpus.jsonl, which is there if there are any.

    The controller's time is one lap after the other; a lap is a step, or lies outside the steps. The times of
    a run that was interrupted, or taken back, go on where they had been: what was between is left out.
    """

    def __init__(self, folder: Path, *, start_s: float | None = None) -> None:
        """start_s: when the run began; None: now."""
        timeline.take()  # what this process did before is no part of the run
        nvml.take()
        clocks.forget()
        self._folder = folder
        self._file = (folder / TIMELINE).open("a", encoding="utf-8")
        self._samples: list[Sample] = []  # of this lap and the one before
        self.num_spans = 0  # written so far
        self._shift_s = 0.0  # from the clock's time to the run's
        self._floor_s = -math.inf  # before it, on the run's time, nothing new can have happened
        self._start_s = timeline.now_s() if start_s is None else start_s
        self._lap_starts = [self._start_s]
        self._lap_steps: list[int | None] = []
        self._last_end_s: dict[str, float] = {}  # of what is known of each role
        self.occupancy: dict[str, Occupancy] = {}  # of each role, from the run's start to the last lap's end

    def lap(self, step: int | None) -> dict[str, float]:
        """End the lap that was `step`, None outside the steps, and write its spans; its metrics of shares.py.

        What a role has not reported yet is counted as going on since its last report.
        """
        start_s, end_s = self._lap_starts[-1], timeline.now_s() + self._shift_s
        self._lap_starts.append(end_s)
        self._lap_steps.append(step)
        clocks.settle()
        spans = list(self._on_our_time(timeline.take()))
        going_on = list(self._going_on(spans))
        own = Span(CONTROLLER, BETWEEN if step is None else STEP, start_s, end_s)
        self._write([own, *spans])
        accounted = account([own, *spans, *going_on], start_s, end_s, roles=self.occupancy)
        for role, pieces in accounted.items():
            before = Occupancy(idle_s=start_s - self._start_s)  # when nothing was known of it
            self.occupancy.setdefault(role, before).add(pieces)
        return step_shares(accounted) | sampling_s(accounted) | self._energy(start_s, end_s)

    def state(self) -> dict[str, Any]:
        """What `rewind` goes on from at the end of the last lap, as JSON has it."""
        return {
            "start_s": self._start_s,
            "end_s": self._lap_starts[-1],
            "num_spans": self.num_spans,
            "occupancy": {role: asdict(seconds) for role, seconds in self.occupancy.items()},
        }

    def rewind(self, state: Mapping[str, Any]) -> None:
        """Begin a lap, as the first one after `state`, {}: as the first of all. Who calls cuts the files."""
        clocks.settle()
        timeline.take()
        nvml.take()
        now_s = timeline.now_s()
        begin_s = state.get("end_s", now_s)
        self._shift_s = begin_s - now_s
        self._start_s = state.get("start_s", now_s)
        self._floor_s = begin_s
        self._lap_starts, self._lap_steps = [begin_s], []
        self._samples.clear()
        self._last_end_s.clear()
        self.num_spans = state.get("num_spans", 0)
        self.occupancy = {role: Occupancy(**part) for role, part in state.get("occupancy", {}).items()}

    def close(self, *, with_lap: bool = True) -> None:
        """End the file; before that, unless nothing is to be added to it, the last lap, outside the steps."""
        if with_lap:
            self.lap(None)
        self._file.close()

    def _energy(self, start_s: float, end_s: float) -> dict[str, float]:
        if samples := list(self._sampled()):
            with (self._folder / GPUS).open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(sample._asdict()) + "\n" for sample in samples)
        self._samples += samples
        used = energy_by_kind(self._samples, start_s, end_s)
        self._samples = [sample for sample in self._samples if sample.time_s >= start_s]
        return {f"energy/{kind}": joules for kind, joules in used.items()}

    def _going_on(self, ended: Iterable[Span]) -> Iterator[Span]:
        for span in ended:
            self._last_end_s[span.role] = max(self._last_end_s.get(span.role, 0.0), span.end_s)
        for span in self._on_our_time(timeline.going_on()):
            if span.role == CONTROLLER:
                yield span
            else:
                yield span._replace(start_s=max(span.start_s, self._last_end_s.get(span.role, 0.0)))

    def _on_our_time(self, spans: Iterable[Span]) -> Iterator[Span]:
        """What of them is not of a time that was left out."""
        for span in spans:
            start_s, end_s = (time_s + self._shift_s for time_s in (span.start_s, span.end_s))
            if end_s > self._floor_s:
                yield span._replace(start_s=max(start_s, self._floor_s), end_s=end_s)

    def _sampled(self) -> Iterator[Sample]:
        for sample in nvml.take():
            if (time_s := sample.time_s + self._shift_s) >= self._floor_s:
                yield sample._replace(time_s=time_s)

    def _write(self, spans: Iterable[Span]) -> None:
        rows = [span._replace(step=self._step_at(span.start_s)) for span in spans]
        with naming(self._folder / TIMELINE):
            self._file.writelines(json.dumps(_row(span)) + "\n" for span in rows)
            self._file.flush()
        self.num_spans += len(rows)

    def _step_at(self, time_s: float) -> int | None:
        lap = bisect_right(self._lap_starts, time_s) - 1
        return self._lap_steps[lap] if 0 <= lap < len(self._lap_steps) else None


def read_timeline(path: Path) -> Iterator[Span]:
    """The spans of a timeline.jsonl, in the order in which they became known.

    Raises:
        OSError: the file cannot be read.
    """
    return (Span(**row) for row in read_rows(path))


def read_samples(path: Path) -> Iterator[Sample]:
    """The samples of a gpus.jsonl, role by role as they became known.

    Raises:
        OSError: the file cannot be read.
    """
    return (Sample(**row) for row in read_rows(path))


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
