"""What a comparison says in words and numbers. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rlstack.telemetry.comparison.runs import ComparedRun
from rlstack.telemetry.curves import Curve
from rlstack.telemetry.settings_section import flat
from rlstack.telemetry.summary import WINDOW

NOT_MEASURED = "–"
OUTCOME_HEADER = (
    "run",
    "status",
    "steps",
    f"reward, first to last {WINDOW} steps",
    "held-out accuracy",
    "s per step",
    "generated tokens/s",
    "trained tokens/s",
    "syncs",
    "largest mismatch",
)
IN_SHORT = {  # columns for a terminal, by what they are called there
    "run": 0,
    "status": 1,
    "steps": 2,
    "reward": 3,
    "held-out accuracy": 4,
    "s/step": 5,
}
OF_NAME = ("run.name", "run.dir")

Table = tuple[list[str], list[list[str]]]  # header and rows


def outcome_rows(runs: Sequence[ComparedRun]) -> Iterator[list[str]]:
    """A row for each run, below OUTCOME_HEADER; speeds are over the time of the steps."""
    for run in runs:
        summary = run.summary
        speeds = [
            _number(summary["tokens"][kind] / run.step_s if run.step_s else None, ".0f")
            for kind in ("generated", "trained")
        ]
        yield [
            run.name,
            summary["status"],
            str(summary["steps"]),
            f"{_number(summary['reward_first20'])} → {_number(summary['reward_last20'])}",
            _accuracy(run),
            _number(run.step_s / summary["steps"] if summary["steps"] else None),
            *speeds,
            str(summary["syncs"]),
            _number(summary["mismatch_logprob_abs_max"], ".1e"),
        ]


def _accuracy(run: ComparedRun) -> str:
    """From the first to the last version that were evaluated; which that was, where it is not the run's."""
    if not run.evaluations:
        return NOT_MEASURED
    first, last = run.evaluations[0], run.evaluations[-1]
    error = last.get("eval/accuracy_stderr")
    parts = [
        f"{first['eval/accuracy']:.3f} →" if len(run.evaluations) > 1 else "",
        f"{last['eval/accuracy']:.3f}",
        f"± {error:.3f}" if error is not None else "",
        f"(version {last['eval/version']})" if last["eval/version"] != run.summary["steps"] else "",
    ]
    return " ".join(part for part in parts if part)


def differing_settings(curves: Sequence[Curve], runs: Sequence[ComparedRun]) -> Table | None:
    """The settings that are not the same everywhere, a column for each curve; None without one."""
    of_run = {run.name: flat(run.settings) for run in runs}
    columns = [[of_run[log.name] for log in curve.runs] for curve in curves]
    return _differing([curve.label for curve in curves], columns, without=OF_NAME)


def differing_machines(runs: Sequence[ComparedRun]) -> Table | None:
    """Hardware and versions that are not the same for all runs that have ended; None without one."""
    ended = [run for run in runs if "hardware" in run.summary]
    columns = [[flat({**run.summary["hardware"], **run.summary["versions"]})] for run in ended]
    return _differing([run.name for run in ended], columns)


def _differing(
    labels: Sequence[str], columns: Sequence[Sequence[Mapping[str, str]]], *, without: Sequence[str] = ()
) -> Table | None:
    """The keys whose values differ, with those of each column, which may have several."""
    keys = dict.fromkeys(key for column in columns for values in column for key in values)
    rows = []
    for key in keys:
        cells = [
            ", ".join(dict.fromkeys(values.get(key, NOT_MEASURED) for values in column)) for column in columns
        ]
        everywhere = {values.get(key) for column in columns for values in column}
        if key not in without and len(everywhere) > 1:
            rows.append([key, *cells])
    return (["", *labels], rows) if rows else None


def _number(value: float | None, form: str = ".3f") -> str:
    return NOT_MEASURED if value is None else f"{value:{form}}"
