"""From the folders of a sweep's runs to numbers, and to one table of all recipes."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweep_notes import UTILITY, utility_rows

from rlstack.telemetry.clock import clock
from rlstack.telemetry.curves import RunLog, read_run, read_summary, trailing_mean
from rlstack.telemetry.summary import WINDOW

DYNAMICS = ("policy/entropy", "rollout/entropy_estimate", "rollout/length_mean", UTILITY)

Row = Mapping[str, Any]
FirstLast = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    recipe: str
    seed: int
    status: str  # completed | stopped
    alarms: tuple[str, ...]  # names of those raised, each once
    values: Mapping[str, float]  # by measure
    log: RunLog

    @classmethod
    def read(cls, folder: Path, *, recipe: str, seed: int) -> RunResult:
        """The result of a run that has left its summary in `folder`."""
        summary, log = read_summary(folder), read_run(folder)
        return cls(
            recipe=recipe,
            seed=seed,
            status=summary["status"],
            alarms=alarm_names(summary),
            values=measures(summary, [*log.steps, *utility_rows(folder / "rollouts.jsonl")]),
            log=log,
        )


def alarm_names(summary: Row) -> tuple[str, ...]:
    """The alarms that a run raised, each once."""
    return tuple(sorted({each["alarm"] for each in summary["alarms"]}))


def measures(summary: Row, steps: Sequence[Row]) -> dict[str, float]:
    """Means of the first and last steps, and the evaluations of the first and last version.

    What was not measured is absent.
    """
    values: dict[str, float] = {"wall_s": summary["wall_s"]}
    names = {name for row in steps for name in row if name in DYNAMICS or name.startswith("reward/mean")}
    for name in names:
        series = [row[name] for row in steps if row.get(name) is not None]
        if series:
            first, last = over_steps(name)
            values |= {first: statistics.fmean(series[:WINDOW]), last: statistics.fmean(series[-WINDOW:])}
            values[best_of(name)] = float(
                trailing_mean(series, WINDOW)[WINDOW - 1 :].max(initial=values[last])
            )
    for evaluation in summary["evaluations"]:
        for name in (name for name, value in evaluation.items() if value is not None):
            initial, final = over_versions(name)
            if evaluation["eval/version"] == 0:
                values[initial] = evaluation[name]
            if evaluation["eval/version"] == summary["steps"]:
                values[final] = evaluation[name]
    return values


def over_steps(metric: str) -> FirstLast:
    """The measures of the first and last steps that a metric of metrics.jsonl has."""
    return f"{metric}_first{WINDOW}", f"{metric}_last{WINDOW}"


def best_of(metric: str) -> str:
    """The measure that is the highest mean over as many steps in a row."""
    return f"{metric}_best{WINDOW}"


def over_versions(metric: str) -> FirstLast:
    """The measures of the first and last version that a metric of the evaluations has."""
    return f"{metric}_initial", f"{metric}_final"


def by_recipe(results: Sequence[RunResult]) -> dict[str, list[RunResult]]:
    """In the order of the first result of each."""
    groups: dict[str, list[RunResult]] = {}
    for result in results:
        groups.setdefault(result.recipe, []).append(result)
    return groups


def values_of(results: Sequence[RunResult], measure: str) -> list[float]:
    """The measure of every run that has it."""
    return [result.values[measure] for result in results if measure in result.values]


def markdown_table(results: Sequence[RunResult]) -> str:
    """A row for each recipe: means over its seeds, ± the standard error over them."""
    lines = [
        f"| recipe | seeds | reward, first and last {WINDOW} steps | held-out accuracy "
        "| entropy of trained tokens | rollout length | wall time |",
        "|---|---|---|---|---|---|---|",
    ]
    for recipe, runs in by_recipe(results).items():
        seeds = ", ".join(str(run.seed) for run in runs)
        cells = [
            _change(runs, over_steps("reward/mean"), digits=2),
            _change(runs, over_versions("eval/accuracy"), digits=3),
            _change(runs, over_steps("policy/entropy"), digits=3),
            _change(runs, over_steps("rollout/length_mean"), digits=1),
            clock(statistics.fmean(values_of(runs, "wall_s"))),
        ]
        lines.append(f"| {recipe} | {seeds} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _change(runs: Sequence[RunResult], series: FirstLast, *, digits: int) -> str:
    first, last = series
    return f"{_mean(values_of(runs, first), digits)} -> {_mean(values_of(runs, last), digits, error=True)}"


def _mean(values: Sequence[float], digits: int, *, error: bool = False) -> str:
    if not values:
        return "-"
    text = f"{statistics.fmean(values):.{digits}f}"
    if error and len(values) > 1:
        text += f" ± {statistics.stdev(values) / len(values) ** 0.5:.{digits}f}"
    return text


def write_csv(results: Sequence[RunResult], path: Path) -> None:
    """A row for each run, a column for each measure that one of them has."""
    names = sorted({name for result in results for name in result.values})
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["recipe", "seed", "status", "alarms", *names])
        writer.writeheader()
        writer.writerows(_csv_rows(results))


def _csv_rows(results: Sequence[RunResult]) -> Iterator[dict[str, object]]:
    for result in results:
        yield {
            "recipe": result.recipe,
            "seed": result.seed,
            "status": result.status,
            "alarms": " ".join(result.alarms),
            **result.values,
        }
