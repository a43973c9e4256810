"""`rlstack tune`: a calibration, the trials, the recommendation, and what they leave."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from rlstack.files import written_at_once
from rlstack.telemetry.clock import clock
from rlstack.telemetry.environment import hardware, package_versions
from rlstack.tuning.interval.budget import shorten
from rlstack.tuning.interval.document import NO_RECOMMENDATION, document, to_text
from rlstack.tuning.interval.forecast import Forecast, make_forecast
from rlstack.tuning.interval.halving import Plan
from rlstack.tuning.interval.intervals import label
from rlstack.tuning.interval.measures import measure
from rlstack.tuning.interval.recommend import recommend
from rlstack.tuning.interval.report import write_report
from rlstack.tuning.interval.request import Request
from rlstack.tuning.interval.tables import measures_table
from rlstack.tuning.interval.trial_runs import TrialRuns
from rlstack.tuning.interval.workspace import Workspace

DOCUMENT, REPORT = "tune.json", "report.html"


def tune(request: Request, *, command: str) -> bool:
    """Whether no trial failed and an interval can be recommended.

    What `request.out` holds of an earlier call is not done again.

    Raises ConfigError if the folder is another tuning's, or the time is too short for any.
    """
    console = Console(highlight=False, markup=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = 200  # a file has room for all columns
    started = time.monotonic()
    with Workspace(request.out, request.config) as workspace:
        console.print(f"tuning schedule.sync_interval in {workspace.out}")
        forecast = make_forecast(request, workspace, console) if request.calibrate else None
        plan, notes = fit_to_budget(request, forecast, spent_s=time.monotonic() - started)
        runs = TrialRuns(
            plan,
            workspace,
            console,
            forecast=forecast.trial_s(plan) if forecast else None,
            deadline=None if request.budget_s is None else started + request.budget_s,
        )
        for line in [*notes, *plan_lines(plan, runs)]:
            console.print(line)
        runs.run()
        if runs.is_cut_short:
            notes.append("the time given was up before all trials were run")
        made = conclude(request, plan, runs, forecast, notes=notes, command=command)
        with written_at_once(workspace.out / DOCUMENT) as file:
            file.write(to_text(made))
        write_report(made, workspace.out / REPORT)
        show(made, console, workspace.out)
    return made["recommended"] is not None and not runs.failures


def fit_to_budget(request: Request, forecast: Forecast | None, *, spent_s: float) -> tuple[Plan, list[str]]:
    """The plan that fits the time left, and what was given up for it."""
    plan = request.plan
    if request.budget_s is None or forecast is None:
        return plan, []

    def seconds_of(candidate: Plan) -> float:
        return sum(map(forecast.trial_s(candidate), candidate.most_trials()))

    shorter = shorten(plan, request.budget_s - spent_s, seconds_of)
    if shorter == plan:
        return plan, []
    return shorter, [f"shortened to fit --budget-minutes {request.budget_s / 60:g}"]


def plan_lines(plan: Plan, runs: TrialRuns) -> list[str]:
    """What is going to be run, and how long that will take as far as it is known."""
    trials = plan.most_trials()
    seconds = runs.seconds(trials)
    estimate = "" if seconds is None else f", about {clock(seconds)} of them to come"
    seeds = ", ".join(map(str, plan.seeds))
    return [
        f"s = {', '.join(map(label, plan.intervals))}; {plan.num_steps} steps each; seeds {seeds}",
        f"rounds with {', '.join(map(str, plan.rungs))} seeds, each with online and the better half of the "
        f"others: at most {len(trials)} trials{estimate}",
    ]


def conclude(
    request: Request,
    plan: Plan,
    runs: TrialRuns,
    forecast: Forecast | None,
    *,
    notes: list[str],
    command: str,
) -> dict[str, Any]:
    """The document."""
    measured = measure(
        list(runs.results.values()),
        margin=plan.margin,
        confidence=plan.confidence,
        accelerators=plan.accelerators,
    )
    origin: Mapping[str, Any] = {
        "machine": hardware(),
        "versions": package_versions(),
        "command": command,
    }
    return document(
        request.name,
        plan,
        accelerator=request.accelerator,
        results=runs.results,
        failures=runs.failures,
        rungs=runs.rungs,
        measured=measured,
        recommendation=recommend(measured, margin=plan.margin, confidence=plan.confidence),
        predicted=forecast.step_s(plan) if forecast else None,
        notes=[*notes, *(forecast.notes if forecast else [])],
        origin=origin,
    )


def show(made: Mapping[str, Any], console: Console, out: Path) -> None:
    """The result on the terminal."""
    header, rows = measures_table(made)
    table = Table(*header, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    console.print()
    console.print(table)
    for failure in made["failures"]:
        console.print(f"failed: s = {failure['interval']}, seed {failure['seed']}: {failure['reason']}")
    console.print()
    if made["recommended"] is None:
        console.print(NO_RECOMMENDATION)
    for reason in made["reasons"]:
        console.print(reason)
    if made["paste"]:
        console.print(f"\nrecommended: {made['paste']}")
    console.print(f"files: {out / DOCUMENT} {out / REPORT}")
