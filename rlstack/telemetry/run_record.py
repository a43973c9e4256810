"""What a run's folder holds, read once for its report."""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from sys import intern
from typing import Any, NamedTuple

from rlstack.errors import ConfigError
from rlstack.telemetry.curves import read_rows, read_settings, read_summary
from rlstack.telemetry.log_files import GPUS, TIMELINE
from rlstack.telemetry.nvml import Sample
from rlstack.telemetry.occupancy import Occupancy, within
from rlstack.telemetry.run_timeline import BETWEEN, STEP
from rlstack.telemetry.timeline import CONTROLLER, Span
from rlstack.telemetry.waiting import account

Row = Mapping[str, Any]

MAX_INTERVALS = 20  # from sync to sync, the last of a run, that are kept one by one


class Lap(NamedTuple):
    """One lap of the controller, with what each role did in it."""

    span: Span
    is_whole: bool  # the spans of all roles in it are known
    roles: Mapping[str, Occupancy] | None  # None: a run of an earlier version, of which all spans are known
    energy_j: Mapping[str, float]


@dataclass(slots=True)
class StepTimes:
    """Seconds, and joules where they are known, of each role over some steps."""

    start_s: float = 0.0  # of the first of them
    end_s: float = 0.0  # of the last
    seconds: float = 0.0  # of all, without what lies between them
    first_step: int | None = None
    last_step: int | None = None
    roles: dict[str, Occupancy] = field(default_factory=dict)
    energy_j: dict[str, float] = field(default_factory=dict)

    def add(self, lap: Lap) -> None:
        """Count a step, later than the others; a role that was not known before it was idle."""
        span, before_s = lap.span, self.seconds
        if self.first_step is None:
            self.start_s, self.first_step = span.start_s, span.step
        self.end_s, self.last_step = span.end_s, span.step
        self.seconds += span.end_s - span.start_s
        for role, seconds in (lap.roles or {}).items():
            self.roles.setdefault(role, Occupancy(idle_s=before_s)).add(seconds)
        for role, joules in lap.energy_j.items():
            self.energy_j[role] = self.energy_j.get(role, 0.0) + joules


class Times:
    """The content of a timeline.jsonl: all steps, the last sync intervals, and the spans that are in it."""

    def __init__(self, synced: Container[int | None] = ()) -> None:
        """synced: the steps that ended with a sync."""
        self._synced = synced
        self._interval = StepTimes()
        self._older: list[Span] = []  # laps that say nothing of their roles
        self.all_steps = StepTimes()
        self.intervals: deque[StepTimes] = deque(maxlen=MAX_INTERVALS)
        self.num_intervals = 0
        self.steps: list[Span] = []  # the controller's laps, one for each step
        self.spans: list[Span] = []  # in the order in which they became known, the laps among them
        self.whole: list[tuple[float, float]] = []  # the time of which all spans are known, in stretches

    def read(self, rows: Iterable[Row]) -> None:
        """Take all rows of a timeline.jsonl, in their order."""
        for row in rows:
            role, phase = intern(row["role"]), intern(row["phase"])  # few, of many spans
            span = Span(role, phase, row["start_s"], row["end_s"], row["reason"], row["step"])
            self.spans.append(span)
            if span.role == CONTROLLER and span.phase in (STEP, BETWEEN):
                self._take(_lap(span, row))
        self._settle()
        self._end_interval()

    def _take(self, lap: Lap) -> None:
        if lap.is_whole:
            begin_s = self.whole.pop()[0] if self.whole and self.whole[-1][1] == lap.span.start_s else None
            self.whole.append((lap.span.start_s if begin_s is None else begin_s, lap.span.end_s))
        if lap.roles is None:
            self._older.append(lap.span)
        else:
            self._settle()
            self._count(lap)

    def _settle(self) -> None:
        """Count the laps that say nothing of their roles by the spans, all of which are known."""
        laps, self._older = self._older, []
        steps = [lap for lap in laps if lap.phase == STEP]
        if not steps:
            return
        accounted = account(self.spans, steps[0].start_s, steps[-1].end_s)
        for lap in steps:
            roles = {
                role: Occupancy.of(within(pieces, lap.start_s, lap.end_s))
                for role, pieces in accounted.items()
            }
            self._count(Lap(lap, is_whole=True, roles=roles, energy_j={}))

    def _count(self, lap: Lap) -> None:
        if lap.span.phase != STEP:
            return
        self.steps.append(lap.span)
        self.all_steps.add(lap)
        self._interval.add(lap)
        if lap.span.step in self._synced:
            self._end_interval()

    def _end_interval(self) -> None:
        if self._interval.first_step is not None:
            self.intervals.append(self._interval)
            self.num_intervals += 1
            self._interval = StepTimes()


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """A run that has ended, or that is going on."""

    path: Path
    settings: dict[str, Any]  # config.yaml
    steps: Sequence[Row]  # metrics.jsonl
    summary: Row | None  # summary.json; None while the run is going on
    times: Times  # timeline.jsonl; empty for a run without one
    samples: Sequence[Sample]  # gpus.jsonl; empty without GPUs

    @property
    def name(self) -> str:
        return str(self.settings["run"]["name"])

    @cached_property
    def start_s(self) -> float:
        """When the timeline begins, on the run's clock."""
        return min((span.start_s for span in self.times.spans), default=0.0)

    def evaluations(self) -> list[Row]:
        """Of the versions that were evaluated, in order; those outside the steps are in the summary only."""
        if self.summary is not None:
            return list(self.summary["evaluations"])
        return [row for row in self.steps if "eval/version" in row]


def check_run(folder: Path) -> None:
    """Raise ConfigError if `folder` is not that of a run; of what it holds, only the settings are read."""
    with _of_run(folder):
        read_settings(folder)
        (folder / "metrics.jsonl").stat()


def read_record(folder: Path | str) -> RunRecord:
    """The run in `folder`.

    Raises ConfigError if the folder is not that of a run.
    """
    folder = Path(folder)
    timeline, gpus, summary = (folder / name for name in (TIMELINE, GPUS, "summary.json"))
    with _of_run(folder):
        settings, steps = read_settings(folder), list(read_rows(folder / "metrics.jsonl"))
        synced = {row["step"] for row in steps if "sync/bytes" in row}
        return RunRecord(
            path=folder,
            settings=settings,
            steps=steps,
            summary=read_summary(folder) if summary.exists() else None,
            times=read_times(timeline, synced=synced) if timeline.exists() else Times(),
            samples=list(read_samples(gpus)) if gpus.exists() else [],
        )


@contextmanager
def _of_run(folder: Path) -> Iterator[None]:
    """Raise an OSError inside as a ConfigError about the folder of a run."""
    try:
        yield
    except OSError as error:
        problem = f"{error.strerror}: {error.filename}"
        raise ConfigError(f"{folder}: is not the folder of a run ({problem}); give one") from None


def read_times(path: Path, *, synced: Container[int | None] = ()) -> Times:
    """Read the timeline.jsonl at `path`; synced: the steps that ended with a sync.

    Raises:
        OSError: the file cannot be read.
        ConfigError: a line is not one of a timeline.
    """
    times = Times(synced)
    try:
        times.read(read_rows(path))
    except (KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{path}: is not the timeline of a run ({error}); the file is damaged, take a copy"
        ) from None
    return times


def read_samples(path: Path) -> Iterator[Sample]:
    """The samples of a gpus.jsonl, role by role as they became known.

    Raises:
        OSError: the file cannot be read.
    """
    return (Sample(**row) for row in read_rows(path))


def _lap(span: Span, row: Row) -> Lap:
    if "roles" not in row:
        return Lap(span, is_whole=True, roles=None, energy_j={})
    seconds, energy_j = {}, {}
    for role, known in row["roles"].items():
        seconds[role] = Occupancy(known["busy_s"], known["waiting_s"], known["idle_s"])
        if "energy_j" in known:
            energy_j[role] = known["energy_j"]
    return Lap(span, row["whole"], seconds, energy_j)
