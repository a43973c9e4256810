"""Everything that a run reports, in one place, so that the loop is not interrupted by it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

from rlstack.config.schema import RunConfig
from rlstack.telemetry import nvml
from rlstack.telemetry.alarms import Alarms, StoppedByAlarm, Verdict
from rlstack.telemetry.console import Console
from rlstack.telemetry.environment import hardware, package_versions
from rlstack.telemetry.logs import write_traceback
from rlstack.telemetry.report import write_outputs
from rlstack.telemetry.run_dir import RunDirectory
from rlstack.telemetry.run_record import read_record
from rlstack.telemetry.run_timeline import RunTimeline
from rlstack.telemetry.summary import summarise
from rlstack.telemetry.timeline import span
from rlstack.telemetry.timing import PHASES, Stopwatch
from rlstack.telemetry.waiting import Reason

REPORT_S_PER_SPAN = 7e-5  # what a report takes, of which a run's end may take this much:
REPORT_S, REPORT_SHARE = 2.0, 0.02  # in seconds, or of its time; what takes longer is left to be asked for


class Recorder:
    """A context: makes the run's folder on entry and leaves summary.json in it, however the run ends.

    An error's traceback goes to logs/error.log, and a note on the error says so.
    """

    def __init__(self, config: RunConfig) -> None:
        self._stopwatch = Stopwatch()
        self._run = RunDirectory.create(config)
        self._timeline = RunTimeline(self._run.path)
        self._is_own_cluster = config.cluster.address is None
        self._console = Console(config.schedule.num_steps)
        self._steps: list[dict[str, Any]] = []
        self._evaluations: dict[int, Mapping[str, Any]] = {}
        self.alarms = Alarms(config.alarms)
        self._raised: list[dict[str, Any]] = []
        self._intervals: list[Mapping[str, Any]] = []

    @property
    def logs(self) -> Path:
        return self._run.logs

    @property
    def model(self) -> Path:
        return self._run.model

    def __enter__(self) -> Recorder:
        if self._run.moved_to is not None:
            self._console.note(f"the earlier run of this name is now {self._run.moved_to}")
        if self._is_own_cluster and (why := nvml.missing()):
            self._console.note(f"NVML: {why}; power, use, memory and temperature of GPUs are not recorded")
        return self

    @contextmanager
    def starting(self, text: str) -> Iterator[None]:
        """Show a part of the start-up and the seconds that it takes."""
        with self._console.phase(f"starting {text}"), span("starting", reason=Reason.start_up):
            yield

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count the time inside towards one of timing.PHASES."""
        with self._stopwatch.phase(name), span(name, reason=PHASES[name]):
            yield

    def evaluated(self, metrics: Mapping[str, Any]) -> None:
        """Note an evaluation outside the steps (eval/*; empty without held-out prompts).

        Its time is not that of a step: the next step's begins here.
        """
        self._stopwatch.lap()
        self._timeline.lap(None)
        if metrics:
            self._evaluations[metrics["eval/version"]] = dict(metrics)
            self._console.evaluation(metrics)

    def samples(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append rows to rollouts.jsonl."""
        self._run.log_rollouts(rows)

    def interval(self, decision: Mapping[str, Any] | None) -> None:
        """Log what the schedule has decided about the interval to come; None if it decides nothing."""
        if decision is not None:
            self._intervals.append(decision)
            self._run.log_interval(decision)
            self._console.interval(decision)

    @property
    def steps(self) -> Sequence[Mapping[str, Any]]:
        """The rows of metrics.jsonl so far."""
        return self._steps

    def step(self, version: int, metrics: Mapping[str, Any]) -> Verdict:
        """Log the step that made `version`, with the time since the last one; what its alarms ask for."""
        row = {"step": version, **metrics, **self._stopwatch.lap(), **self._timeline.lap(version)}
        self._steps.append(row)
        if "eval/version" in row:
            evaluation = {name: value for name, value in row.items() if name.startswith("eval/")}
            self._evaluations[row["eval/version"]] = evaluation
        self._run.log_step(row)
        self._console.step(row)
        raised = self.alarms.update(version, row)
        rows = [asdict(each) for each in raised]
        self._raised += rows
        self._run.log_alarms(rows)
        for each in raised:
            self._console.alarm(each)
        return Verdict.of(raised)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._timeline.close()
        summary = summarise(
            self._steps,
            status=_status(kind),
            evaluations=self._evaluations,
            wall_s=self._stopwatch.elapsed_s,
            phase_s=self._stopwatch.total_s,
        )
        summary |= {
            "alarms": self._raised,
            "intervals": self._intervals,
            "roles": {role: asdict(seconds) for role, seconds in self._timeline.occupancy.items()},
            "versions": package_versions(),
            "hardware": hardware(),
        }
        self._run.write_summary(summary)
        self._console.summary(summary, self._run.path)
        if error is not None and summary["status"] == "failed":
            error.add_note(f"the traceback is in {write_traceback(error, self._run.logs)}")
        if isinstance(error, StoppedByAlarm):
            error.add_note(f"the model as it was then is in {self._run.model}")
        self._write_report(summary["wall_s"])
        self._run.close()

    def _write_report(self, wall_s: float) -> None:
        """What goes wrong here is said and no more: the run is over, and its files are all there."""
        if self._timeline.num_spans * REPORT_S_PER_SPAN > max(REPORT_S, REPORT_SHARE * wall_s):
            self._console.note(f"for report.html and timeline.json: rlstack report {self._run.path}")
            return
        try:
            write_outputs(read_record(self._run.path))
        except Exception as error:
            self._console.note(f"report.html could not be written: {error}")


def _status(kind: type[BaseException] | None) -> str:
    if kind is None:
        return "completed"
    if issubclass(kind, StoppedByAlarm):
        return "stopped"
    return "interrupted" if issubclass(kind, KeyboardInterrupt) else "failed"
