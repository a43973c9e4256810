"""Everything that a run reports, in one place, so that the loop is not interrupted by it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from rlstack.config.resume import Contents
from rlstack.config.schema import RunConfig
from rlstack.errors import CheckpointError, ConfigError
from rlstack.telemetry import clocks, nvml, sampled
from rlstack.telemetry.alarms import Alarms, Raised, StoppedByAlarm, Verdict
from rlstack.telemetry.clocks import ClockAlarms
from rlstack.telemetry.closing import Attempts, error_of, explain, how_to_go_on, report, status_of
from rlstack.telemetry.console import Console
from rlstack.telemetry.environment import hardware, package_versions
from rlstack.telemetry.history import History, rows_of
from rlstack.telemetry.log_files import RESTARTS, check_lengths, lengths
from rlstack.telemetry.loggers.loggers import Loggers
from rlstack.telemetry.run_dir import RunDirectory
from rlstack.telemetry.run_timeline import DROPPED, RunTimeline
from rlstack.telemetry.skips import skipped_too_often
from rlstack.telemetry.summary import summarise
from rlstack.telemetry.throughput import Throughput
from rlstack.telemetry.timeline import MAX_SPANS, now_s, span
from rlstack.telemetry.timing import PHASES, Stopwatch
from rlstack.telemetry.waiting import Reason


class Recorder:
    """A context: makes the run's folder, or goes on in it, and leaves summary.json, however the run ends.

    An error's traceback goes to logs/error.log, and a note on the error says so.
    """

    def __init__(
        self,
        config: RunConfig,
        *,
        resume: bool = False,
        can_resume: bool = True,
        inputs: Contents | None = None,
    ) -> None:
        """resume: in the folder of an earlier run if there is one; then `rewind` has to follow.

        can_resume: whether `rlstack train --resume` goes on with the run, should it break off.
        inputs: what the paths among the settings lead to, for inputs.json; None: there is no such file.

        Raises ConfigError if the folder cannot be used, or a logger cannot begin.
        """
        self._stopwatch, start_s = Stopwatch(), now_s()
        self._console = Console(config.schedule.num_steps)
        begin = RunDirectory.resume if resume else RunDirectory.create
        self._run = begin(config, inputs=inputs)
        self._loggers = Loggers.of_run(config, self._run, note=self.note)
        self._can_resume = can_resume
        self.saved_step: int | None = None  # of the newest checkpoint, as far as whoever writes them tells
        self._save_every = config.schedule.save_every
        self._attempts = Attempts(self.note)
        self._has_begun = not self._run.is_resumed  # until then the earlier run's files stay as they are
        self._to_cut: tuple[int, dict[str, int]] | None = None  # step and lengths; see go_on
        self._timeline = RunTimeline(
            self._run.path, start_s=start_s, whole_steps=config.telemetry.timeline_steps
        )
        self._has_told_of_losses = False
        self._throughput = Throughput.of(config)
        self._is_own_cluster = config.cluster.address is None
        self._history = History()
        self._resumed: list[int] = []  # versions from which the run went on to what its files hold
        # A loss of the user's own may learn from rewards that tie.
        self._new_alarms = partial(Alarms, config.alarms, needs_contrast=config.objective.loss is None)
        self.alarms = self._new_alarms()
        self._clock_alarms = ClockAlarms()
        self._max_skipped_steps = config.optimizer.max_skipped_steps

    @property
    def logs(self) -> Path:
        return self._run.logs

    @property
    def is_resumed(self) -> bool:
        """Whether the folder is that of an earlier run, which this one is to `rewind`."""
        return self._run.is_resumed

    @property
    def checkpoints(self) -> Path:
        return self._run.checkpoints

    @property
    def model(self) -> Path:
        return self._run.model

    def __enter__(self) -> Recorder:
        self._console.open()
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
        sampled.take()
        if metrics:
            self._history.add_evaluation(dict(metrics))
            self._console.evaluation(metrics)
            self._loggers.evaluation(metrics)

    def samples(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append rows to rollouts.jsonl."""
        self._run.log_rollouts(rows)

    def interval(self, decision: Mapping[str, Any] | None) -> None:
        """Log what the schedule has decided about the interval to come; None if it decides nothing."""
        if decision is not None:
            self._history.intervals.append(decision)
            self._run.log_interval(decision)
            self._console.interval(decision)

    @property
    def history(self) -> History:
        """What has been reported so far."""
        return self._history

    def restarted(self, restart: Mapping[str, Any]) -> None:
        """Log that a role was replaced, or could not be: a row of Restarts. From any thread."""
        row = {"step": self._history.last_step, **restart}
        self._run.log_restart(row)
        self._console.restart(row)

    def note(self, text: str) -> None:
        """One line on the terminal."""
        self._console.note(text)

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Show the time inside as the controller's wait for a checkpoint."""
        with span("save", reason=Reason.training):
            yield

    def lengths(self) -> dict[str, int]:
        """Bytes of each of the run's files of lines, which are on disk."""
        return lengths(self._run.path)

    def state(self) -> dict[str, Any]:
        """What `rewind` needs beyond those files to go on after the step logged last, as JSON has it."""
        return {
            "stopwatch": self._stopwatch.state(),
            "timeline": self._timeline.state(),
            "alarms": self.alarms.state(),
            "evaluations": list(self._history.evaluations.values()),
            "resumed": list(self._resumed),
        }

    def rewind(
        self, step: int, lengths: Mapping[str, int], state: Mapping[str, Any], *, later: bool = False
    ) -> None:
        """Go on as after `step`, when the files had these `lengths` and this was the `state`.

        0, {} and {} are the start, before anything was logged. later: the files stay as they are until
        go_on(), and if a CheckpointError ends a resumed run before that.

        Raises ConfigError, with all as it was, if a file is shorter than that or cannot be read.
        """
        history = History.read(self._run.path, state.get("evaluations", []), lengths)
        check_lengths(self._run.path, lengths)
        self._to_cut = step, dict(lengths)
        if not later:
            self.go_on()
        self._history = history
        self._resumed = [*state.get("resumed", []), step]
        self._console.go_on_after(self._history.steps)
        self._stopwatch.go_on(**state.get("stopwatch", {"total_s": {}, "elapsed_s": 0.0}))
        self._timeline.rewind(state.get("timeline", {}))
        sampled.take()
        self.alarms = self._new_alarms()
        if "alarms" in state:
            self.alarms.restore(state["alarms"])

    def go_on(self) -> None:
        """Cut the files back to where rewind() was, if that is still to be done.

        Raises ConfigError if they cannot be changed.
        """
        if self._to_cut is None:
            return
        step, lengths = self._to_cut
        self._run.cut_back(lengths, last_step=step)
        self._loggers.rewind(step)
        self._to_cut, self._has_begun = None, True

    def step(self, version: int, metrics: Mapping[str, Any]) -> Verdict:
        """Log the step that made `version`, with the time since the last one; what its alarms ask for."""
        row = {"step": version, **metrics, **self._stopwatch.lap(), **self._timeline.lap(version)}
        row |= {"tokens/sampled": sampled.take()}
        row |= self._throughput.of_step(row)
        self._tell_of_losses(row)
        self._history.add_step(row)
        self._run.log_step(row)
        self._console.step(row)
        self._loggers.step(row)
        raised = self.alarms.update(version, row)
        raised += skipped_too_often(self._history.steps, limit=self._max_skipped_steps)
        raised += self._clock_alarms.update(version)
        self._log_alarms(raised)
        return Verdict.of(raised)

    def _tell_of_losses(self, row: Mapping[str, Any]) -> None:
        """One line, once in a run, if spans were lost."""
        if DROPPED in row and not self._has_told_of_losses:
            self._has_told_of_losses = True
            self.note(
                f"{row[DROPPED]} spans of step {row['step']} were lost: a process keeps {MAX_SPANS} of them "
                f"until they are taken. Its shares of time (busy/*, idle/*, wait/*) are wrong; {DROPPED} of "
                "metrics.jsonl has the number for each step"
            )

    def _log_alarms(self, raised: Sequence[Raised]) -> None:
        rows = [asdict(each) for each in raised]
        self._history.alarms += rows
        self._run.log_alarms(rows)
        self._loggers.alarms(rows)
        for each in raised:
            self._console.alarm(each)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._console.close()
        if self._has_begun or not isinstance(error, CheckpointError):
            with suppress(ConfigError):  # what ended the run says more
                self.go_on()
        with self._attempts.of("timeline.jsonl"):
            self._timeline.close(with_lap=self._has_begun)
        if self._has_begun:
            self._leave(kind, error)
        self._loggers.close()
        with self._attempts.of("metrics.jsonl"):
            self._run.close()
        if error is None:
            self._attempts.settle()

    def _leave(self, kind: type[BaseException] | None, error: BaseException | None) -> None:
        if error is None and self._history.steps:
            self._log_alarms(self.alarms.at_end(self._history.steps[-1]["step"]))
        summary = summarise(
            self._history.steps,
            status=status_of(kind),
            evaluations=self._history.evaluations,
            wall_s=self._stopwatch.elapsed_s,
            phase_s=self._stopwatch.total_s,
        )
        summary |= {
            "error": error_of(error, summary["status"]),
            "alarms": self._history.alarms,
            "intervals": self._history.intervals,
            "resumed": self._resumed,
            "restarts": rows_of(self._run.path / RESTARTS),
            "throughput": self._throughput.of_run(self._history.steps),
            "roles": {role: asdict(seconds) for role, seconds in self._timeline.occupancy.items()},
            "clocks": clocks.offsets(),
            "versions": package_versions(),
            "hardware": hardware(),
        }
        with self._attempts.of("summary.json"):
            self._run.write_summary(summary)
        self._loggers.finish(summary)
        self._console.summary(summary, self._run.path)
        broke_off = summary["status"] in ("failed", "interrupted")
        if broke_off and self._can_resume and not isinstance(error, ConfigError):
            self._console.note(
                how_to_go_on(self._run.config, saved_step=self.saved_step, save_every=self._save_every)
            )
        if error is not None and summary["status"] == "failed":
            explain(error, self._run.logs)
        if isinstance(error, StoppedByAlarm):
            error.add_note(f"the model as it was then is in {self._run.model}")
        report(
            self._run.path,
            num_spans=self._timeline.num_spans,
            wall_s=summary["wall_s"],
            note=self._console.note,
        )
