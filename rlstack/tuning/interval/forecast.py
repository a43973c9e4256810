"""What the cost model says of the trials before they are run, from a short calibration."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from rlstack.telemetry.clock import clock
from rlstack.telemetry.curves import read_summary
from rlstack.tuning.calibration import Calibration, calibration_runs
from rlstack.tuning.cost_model import predict
from rlstack.tuning.fit import calibrate
from rlstack.tuning.interval.halving import Plan
from rlstack.tuning.interval.intervals import Interval
from rlstack.tuning.interval.request import Request
from rlstack.tuning.interval.trials import Trial, folder_settings
from rlstack.tuning.interval.workspace import Workspace
from rlstack.tuning.measure import measured_run
from rlstack.tuning.parts import Parts
from rlstack.tuning.setup import Setup
from rlstack.tuning.training_process import is_finished, last_words, train_in_process


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """The parts of the job, as measured."""

    parts: Parts
    setup: Setup  # of the trials, but for their interval and number of steps
    notes: Sequence[str]  # what the calibration could not tell

    def step_s(self, plan: Plan) -> Mapping[Interval, float]:
        """Predicted seconds per step, a mean over the steps of a trial."""
        return {s: self._steps_s(s, plan.num_steps) / plan.num_steps for s in plan.intervals}

    def trial_s(self, plan: Plan) -> Callable[[Trial], float]:
        """Predicted seconds of a trial of the plan, from its start to its end."""
        around_s = self.parts.start_up_s + 2 * self.parts.evaluation_s
        step_s = self.step_s(plan)
        return lambda trial: around_s + plan.num_steps * step_s[trial.interval]

    def _steps_s(self, interval: Interval, num_steps: int) -> float:
        return predict(self.parts, replace(self.setup, sync_interval=interval, num_steps=num_steps)).wall_s


def make_forecast(request: Request, workspace: Workspace, console: Console) -> Forecast | None:
    """Run what the cost model is fitted on, as far as it is not there already; None if a run failed."""
    runs = calibration_runs(request.config)
    for i, run in enumerate(runs, start=1):
        label = f"[calibration {i}/{len(runs)}] {run.name}"
        if problem := _run(run, workspace):
            console.print(f"{label}: failed: {problem}; going on without a forecast of time")
            return None
        wall_s = read_summary(workspace.calibration / run.name)["wall_s"]
        console.print(f"{label}: {clock(wall_s)}")
    fitted = calibrate([measured_run(workspace.calibration / run.name) for run in runs])
    return Forecast(parts=fitted.parts, setup=Setup.of(request.config), notes=fitted.notes)


def _run(run: Calibration, workspace: Workspace) -> str | None:
    """What went wrong; None if it is finished."""
    folder: Path = workspace.calibration
    settings = [*folder_settings(folder, run.name), *run.settings]
    if is_finished(workspace.config, settings):
        return None
    log = folder / f"{run.name}.log"
    train_in_process(workspace.config, settings, log=log)
    return None if is_finished(workspace.config, settings) else f"{last_words(log)} (see {log})"
