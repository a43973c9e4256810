"""The timeline of a run as it is written: the seconds of each lap by role, all spans of some, GPU samples."""

from __future__ import annotations

import json
import math
import statistics
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rlstack.files import naming
from rlstack.telemetry import clocks, nvml, timeline
from rlstack.telemetry.energy import GpuThinning, by_role, gpu_use
from rlstack.telemetry.log_files import GPUS, TIMELINE
from rlstack.telemetry.nvml import Sample
from rlstack.telemetry.occupancy import Occupancy
from rlstack.telemetry.timeline import CONTROLLER, Span
from rlstack.telemetry.waiting import Kind, account, kind_of

STEP = "step"  # the phase of the controller in which all others of a step lie
BETWEEN = "between_steps"  # as before the first and after the last one
SAMPLING = "generate"  # an engine's phase
DROPPED = "timeline/dropped_spans"

WHOLE_SPANS = 250_000  # that are written of the first laps, before only the slowest steps' are
SLOW_SPANS = 250_000  # of the slowest steps
NUM_SLOWEST = 8  # steps that a further one is measured against
SLOWER = 1.25  # than the least slow of them, to be written whole too


class RunTimeline:
    """Takes the spans of this process, where those of all roles arrive, and appends to timeline.jsonl.

    Of every lap the file gets a line with the seconds of each role, and of those that WholeLaps chooses all
    spans. Samples of GPUs go to gpus.jsonl, which is there if there are any, as GpuThinning leaves them.

    The controller's time is one lap after the other; a lap is a step, or lies outside the steps. The times of
    a run that was interrupted, or taken back, go on where they had been: what was between is left out.
    """

    def __init__(
        self, folder: Path, *, start_s: float | None = None, whole_steps: Sequence[int] | None = None
    ) -> None:
        """start_s: when the run began; None: now. whole_steps: telemetry.timeline_steps."""
        timeline.take()  # what this process did before is no part of the run
        nvml.take()
        clocks.forget()
        self._folder = folder
        self._file = (folder / TIMELINE).open("a", encoding="utf-8")
        self._samples: list[Sample] = []  # of this lap and the one before
        self._thinning = GpuThinning()
        self._window = whole_steps
        self._whole = WholeLaps(whole_steps)
        self.num_spans = 0  # written so far
        self._num_dropped = clocks.num_dropped()  # before the lap
        self._shift_s = 0.0  # from the clock's time to the run's
        self._floor_s = -math.inf  # before it, on the run's time, nothing new can have happened
        self._start_s = timeline.now_s() if start_s is None else start_s
        self._lap_starts = [self._start_s]
        self._lap_steps: list[int | None] = []
        self._last_end_s: dict[str, float] = {}  # of what is known of each role
        self.occupancy: dict[str, Occupancy] = {}  # of each role, from the run's start to the last lap's end

    def lap(self, step: int | None) -> dict[str, float]:
        """End the lap that was `step`, None outside the steps, and write it; its shares, energy and losses.

        What a role has not reported yet is counted as going on since its last report.
        """
        start_s, end_s = self._lap_starts[-1], timeline.now_s() + self._shift_s
        self._lap_starts.append(end_s)
        self._lap_steps.append(step)
        clocks.settle()
        spans = list(self._on_our_time(timeline.take()))
        going_on = list(self._going_on(spans))
        own = Span(CONTROLLER, BETWEEN if step is None else STEP, start_s, end_s, None, step)
        accounted = account([own, *spans, *going_on], start_s, end_s, roles=self.occupancy)
        seconds = {role: Occupancy.of(pieces) for role, pieces in accounted.items()}
        for role, of_lap in seconds.items():
            before = Occupancy(idle_s=start_s - self._start_s)  # when nothing was known of it
            self.occupancy.setdefault(role, before).add(of_lap)
        energy_j = self._energy(start_s, end_s)
        self._write(own, spans, _roles(seconds, energy_j))
        return step_shares(seconds) | sampling_s(seconds) | _by_kind(energy_j) | self._dropped()

    def state(self) -> dict[str, Any]:
        """What `rewind` goes on from at the end of the last lap, as JSON has it."""
        return {
            "start_s": self._start_s,
            "end_s": self._lap_starts[-1],
            "num_spans": self.num_spans,
            "whole": self._whole.state(),
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
        self._thinning = GpuThinning()
        self._last_end_s.clear()
        self.num_spans = state.get("num_spans", 0)
        before = state.get("whole", {"num_first": self.num_spans})  # of a run that kept all spans
        self._whole = WholeLaps(self._window, **before)
        self.occupancy = {role: Occupancy(**part) for role, part in state.get("occupancy", {}).items()}

    def close(self, *, with_lap: bool = True) -> None:
        """End the file; before that, unless nothing is to be added to it, the last lap, outside the steps."""
        if with_lap:
            self.lap(None)
            self._write_samples(self._thinning.rest())
        self._file.close()

    def _energy(self, start_s: float, end_s: float) -> dict[str, float]:
        """Joules of each role's GPUs in a lap; roles whose power is not known are left out."""
        samples = list(self._sampled())
        self._write_samples(self._thinning.thinned(samples, elapsed_s=end_s - self._start_s))
        self._samples += samples
        used = {role: gpu_use(own, start_s, end_s).joules for role, own in by_role(self._samples).items()}
        self._samples = [sample for sample in self._samples if sample.time_s >= start_s]
        return {role: joules for role, joules in used.items() if joules is not None}

    def _write_samples(self, samples: Sequence[Sample]) -> None:
        if samples:
            with (self._folder / GPUS).open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(sample._asdict()) + "\n" for sample in samples)

    def _dropped(self) -> dict[str, float]:
        """DROPPED of a lap, where spans were lost."""
        before, self._num_dropped = self._num_dropped, clocks.num_dropped()
        lost = self._num_dropped - before  # below 0 where a role's process was replaced
        return {DROPPED: lost} if lost > 0 else {}

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

    def _write(self, own: Span, spans: Sequence[Span], roles: Mapping[str, Any]) -> None:
        """Append the lap with the seconds of its `roles`, and those of `spans` that are to be kept."""
        is_whole = self._whole.takes(own, len(spans))
        kept = [
            span._replace(step=self._step_at(span.start_s)) for span in spans if self._whole.overlaps(span)
        ]
        with naming(self._folder / TIMELINE):
            lap = _row(own) | {"whole": is_whole, "roles": roles}
            self._file.writelines(json.dumps(row) + "\n" for row in [lap, *map(_row, kept)])
            self._file.flush()
        self.num_spans += 1 + len(kept)

    def _step_at(self, time_s: float) -> int | None:
        lap = bisect_right(self._lap_starts, time_s) - 1
        return self._lap_steps[lap] if 0 <= lap < len(self._lap_steps) else None


@dataclass(slots=True)
class WholeLaps:
    """The laps of which all spans are kept: a window of steps, or the first ones; and the slowest steps.

    A step counts as slow if it takes SLOWER times as long as the least slow of the NUM_SLOWEST so far, so
    that steps which get slower all the time are not all kept.
    """

    window: Sequence[int] | None  # first and last step; None: from the start on, as long as WHOLE_SPANS last
    num_first: int = 0  # spans of the laps that were kept but for their duration
    num_slow: int = 0  # spans of the others
    slowest_s: list[float] = field(default_factory=list)  # in ascending order
    first_s: float = 0.0  # from here to `last_s` is the newest stretch of kept laps, on the run's clock
    last_s: float = 0.0

    def takes(self, lap: Span, num_spans: int) -> bool:
        """Count `lap`, the newest, with its number of spans; True if they are kept."""
        if is_first := self._is_first(lap.step):
            self.num_first += num_spans
        is_slow = lap.step is not None and self._is_slow(lap.end_s - lap.start_s, counts=is_first)
        if is_slow and not is_first:
            self.num_slow += num_spans
        if is_first or is_slow:
            if self.last_s not in (0.0, lap.start_s):
                self.first_s = lap.start_s
            self.last_s = lap.end_s
        return is_first or is_slow

    def overlaps(self, span: Span) -> bool:
        """Return True if a span that has become known lies, in part, in a lap that is kept."""
        return span.start_s < self.last_s and span.end_s > self.first_s

    def state(self) -> dict[str, Any]:
        """The keywords, but for the window, of one that goes on after the same laps, as JSON has them."""
        return {name: value for name, value in asdict(self).items() if name != "window"}

    def _is_first(self, step: int | None) -> bool:
        if self.window is not None and step is not None:
            return self.window[0] <= step <= self.window[1]
        return self.num_first < WHOLE_SPANS

    def _is_slow(self, seconds: float, *, counts: bool) -> bool:
        """counts: the step is kept anyway, and is one to measure others against."""
        if len(self.slowest_s) == NUM_SLOWEST:
            if seconds <= self.slowest_s[0] * (1 if counts else SLOWER):
                return False
            if self.num_slow >= SLOW_SPANS and not counts:
                return False
            self.slowest_s.pop(0)
        self.slowest_s = sorted([*self.slowest_s, seconds])
        return True


def step_shares(roles: Mapping[str, Occupancy]) -> dict[str, float]:
    """busy/{roles} and idle/{roles} of each kind, means over its processes, and wait/{reason} of the policy.

    What is left of a kind's time it waited; busy/policy, idle/policy and all wait/{reason} add up to 1.
    """
    of_kind: dict[Kind, list[Occupancy]] = {}
    for role, seconds in roles.items():
        of_kind.setdefault(kind_of(role), []).append(seconds)
    shares: dict[str, float] = {}
    for kind, members in of_kind.items():
        shares[f"busy/{kind}"] = _mean_share(members, [sum(each.busy_s.values()) for each in members])
        if kind is not Kind.controller:
            shares[f"idle/{kind}"] = _mean_share(members, [each.idle_s for each in members])
    policy = of_kind.get(Kind.policy, [])
    for reason in sorted({reason for each in policy for reason in each.waiting_s}):
        shares[f"wait/{reason}"] = _mean_share(policy, [each.waiting_s.get(reason, 0.0) for each in policy])
    return shares


def sampling_s(roles: Mapping[str, Occupancy]) -> dict[str, float]:
    """time/sampling_s, in which the engines sampled, as a mean over them; {} without an engine."""
    engines = [seconds for role, seconds in roles.items() if kind_of(role) is Kind.engine]
    if not engines:
        return {}
    return {"time/sampling_s": statistics.fmean(each.busy_s.get(SAMPLING, 0.0) for each in engines)}


def _mean_share(members: Iterable[Occupancy], seconds: Iterable[float]) -> float:
    return statistics.fmean(
        part / each.total_s if each.total_s else 0.0 for each, part in zip(members, seconds, strict=True)
    )


def _by_kind(energy_j: Mapping[str, float]) -> dict[str, float]:
    """energy/{roles}: joules of all roles of a kind."""
    used: dict[str, float] = {}
    for role, joules in energy_j.items():
        name = f"energy/{kind_of(role)}"
        used[name] = used.get(name, 0.0) + joules
    return used


def _roles(seconds: Mapping[str, Occupancy], energy_j: Mapping[str, float]) -> dict[str, Any]:
    """`roles` of a lap's line: seconds to the microsecond, and joules where the power is known."""
    return {
        role: {
            "busy_s": {phase: round(spent, 6) for phase, spent in of_role.busy_s.items()},
            "waiting_s": {reason: round(spent, 6) for reason, spent in of_role.waiting_s.items()},
            "idle_s": round(of_role.idle_s, 6),
            **({"energy_j": round(energy_j[role], 3)} if role in energy_j else {}),
        }
        for role, of_role in seconds.items()
    }


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
