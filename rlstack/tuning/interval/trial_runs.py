"""Runs the trials one after the other, as halving asks for them; what is finished already is read instead."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from rich.console import Console
from rich.status import Status

from rlstack.telemetry.clock import clock
from rlstack.telemetry.curves import read_rows, read_summary
from rlstack.tuning.interval.halving import Plan, Rung, rungs
from rlstack.tuning.interval.intervals import label
from rlstack.tuning.interval.measures import last_reward
from rlstack.tuning.interval.trials import Trial, TrialResult
from rlstack.tuning.interval.workspace import Workspace
from rlstack.tuning.training_process import is_finished, last_words, train_in_process, wait_until_free

ATTEMPTS = 2  # at a trial that fails; settings that are refused are refused again
USAGE_ERROR = 2


class TrialRuns:
    """The trials of a plan; `results` and `failures` hold what has come of them so far."""

    def __init__(
        self,
        plan: Plan,
        workspace: Workspace,
        console: Console,
        *,
        forecast: Callable[[Trial], float] | None,  # seconds of a trial
        deadline: float | None,  # of time.monotonic()
    ) -> None:
        self.results: dict[Trial, TrialResult] = {}
        self.failures: dict[Trial, str] = {}
        self.is_cut_short = False  # by the deadline
        self._plan = plan
        self._workspace = workspace
        self._console = console
        self._forecast = forecast
        self._deadline = deadline
        self._outside_s: list[float] = []  # of trials: the process's start and end, which no summary counts

    @property
    def rungs(self) -> list[Rung]:
        """The rounds so far."""
        return rungs(self._plan, self.results, self.failures)

    def run(self) -> None:
        """Until halving asks for no more, or the next trial would end after the deadline."""
        shown = 0
        while True:
            rounds = self.rungs
            for rung in rounds[shown:-1]:
                self._console.print(f"goes on with s = {', '.join(map(label, rung.kept))}")
            shown = len(rounds) - 1
            if not (todo := rounds[-1].todo):
                return
            if self._is_finished(todo[0]):
                self._read(todo[0])
                self._tell(todo, "was finished before")
            elif self._is_late(todo[0]):
                self.is_cut_short = True
                self._console.print(f"the time is up: {len(todo)} trials of this round are left out")
                return
            else:
                self._tell(todo, clock(self._train(todo[0])))

    def seconds(self, trials: Iterable[Trial]) -> float | None:
        """That those of `trials` will take that are not there yet; None: nothing is known of them."""
        summaries = {t: self._workspace.trials / t.name / "summary.json" for t in trials}
        expected = [self._expected_s(trial) for trial, path in summaries.items() if not path.exists()]
        known = [seconds for seconds in expected if seconds is not None]
        return sum(known) if len(known) == len(expected) else None

    def _expected_s(self, trial: Trial) -> float | None:
        """As other seeds of the interval took, else as forecast, else as all others took."""
        outside_s = statistics.fmean(self._outside_s) if self._outside_s else 0.0
        took_s = {r.trial: r.wall_s + r.start_up_s + outside_s for r in self.results.values()}
        same = [seconds for other, seconds in took_s.items() if other.interval == trial.interval]
        if not same and self._forecast is not None:
            return self._forecast(trial) + outside_s
        return statistics.fmean(same or took_s.values()) if took_s else None

    def _is_late(self, trial: Trial) -> bool:
        expected_s = self._expected_s(trial) or 0.0
        return self._deadline is not None and time.monotonic() + expected_s > self._deadline

    def _train(self, trial: Trial) -> float:
        """Seconds that it took, with all attempts."""
        begun = time.monotonic()
        folder = self._workspace.trials / trial.name
        log = folder.with_suffix(".log")
        wait_until_free(folder)
        for attempt in range(ATTEMPTS):
            if attempt:
                self._console.print(f"{self._label(trial)}: failed, once more: {last_words(log)}")
            started = time.monotonic()
            with self._console.status(self._label(trial)) as bar:  # nothing where there is no terminal
                status = train_in_process(
                    self._workspace.config,
                    self._settings(trial),
                    log=log,
                    watch=partial(self._show_progress, trial, bar),
                )
            if self._is_finished(trial):
                self._read(trial)
                wall_s = read_summary(folder)["wall_s"]
                self._outside_s.append(time.monotonic() - started - wall_s)
                break
            self.failures[trial] = f"{last_words(log)} (exit status {status}, see trials/{log.name})"
            if status == USAGE_ERROR:
                break
        return time.monotonic() - begun

    def _settings(self, trial: Trial) -> list[str]:
        return trial.settings(self._workspace.trials, num_steps=self._plan.num_steps)

    def _is_finished(self, trial: Trial) -> bool:
        return is_finished(self._workspace.config, self._settings(trial))

    def _read(self, trial: Trial) -> None:
        self.failures.pop(trial, None)
        folder = self._workspace.trials / trial.name
        summary = read_summary(folder)
        if summary["status"] != "completed":
            reasons = "; ".join(each["reason"] for each in summary["alarms"])
            self.failures[trial] = f"stopped by an alarm after {summary['steps']} steps: {reasons}"
            return
        result = TrialResult.read(folder, trial)
        if all(reward is None for reward in result.rewards):
            self.failures[trial] = "no rollout could be scored"
            return
        self.results[trial] = result

    def _label(self, trial: Trial) -> str:
        number = len((self.results.keys() | self.failures.keys()) - {trial}) + 1
        return f"[{number}/{len(self._plan.most_trials())}] {trial}"

    def _show_progress(self, trial: Trial, bar: Status) -> None:
        label = self._label(trial)
        try:
            steps = list(read_rows(self._workspace.trials / trial.name / "metrics.jsonl"))
        except OSError:
            steps = []
        if not steps:
            bar.update(f"{label}: starting")
            return
        step_s = statistics.fmean(row["time/step_s"] for row in steps)
        left_s = (self._plan.num_steps - len(steps)) * step_s
        done = f"{len(steps)}/{self._plan.num_steps}"
        bar.update(f"{label}: step {done}, {step_s:.2f} s per step, ETA {clock(left_s)}")

    def _tell(self, todo: Sequence[Trial], took: str) -> None:
        """One line about the first of `todo`, which is done."""
        trial, *rest = todo
        later = [t for t in self._plan.most_trials() if t.seed > max(each.seed for each in todo)]
        left_s = self.seconds([*rest, *later])
        eta = "" if left_s is None else f"; about {clock(left_s)} left"
        self._console.print(f"{self._label(trial)}: {self._outcome(trial)}; {took}{eta}")

    def _outcome(self, trial: Trial) -> str:
        if trial in self.failures:
            return f"failed: {self.failures[trial]}"
        result = self.results[trial]
        accuracy = "" if result.accuracy is None else f", accuracy {result.accuracy:.3f}"
        return f"reward {last_reward(result):.3f}{accuracy}, {result.step_s:.3f} s per step"
