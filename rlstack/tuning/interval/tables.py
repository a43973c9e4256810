"""The numbers of tune.json as the rows of a table. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from typing import Any

HEADER = (
    "s",
    "seeds",
    "reward",
    "less online's",
    "",
    "per hour",
    "in equal time",
    "s per step",
    "s to target",
    "accuracy",
)


def measures_table(made: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and a row for each interval."""
    per_hour = f"per {made['plan']['accelerator'].removesuffix('s')}-hour"
    header = [*HEADER[:6], per_hour, *HEADER[6:]]
    return header, [
        [
            str(row["interval"]),
            str(row["reward"]["num"]),
            with_width(row["reward"], 3),
            "" if row["interval"] == 1 else with_width(row["reward_difference"], 3, sign="+"),
            verdict_text(row),
            with_width(row["per_hour"], 1),
            f"{row['per_accelerator_hour']['mean']:.1f}",
            f"{row['reward_in_time']['mean']:.3f}",
            f"{row['step_s']['mean']:.3f}",
            _target(row),
            with_width(row["accuracy"], 3),
        ]
        for row in made["measures"]
    ]


def verdict_text(row: Mapping[str, Any]) -> str:
    """Whether an interval is as good as online per step."""
    return "" if row["interval"] == 1 or row["verdict"] is None else str(row["verdict"])


def with_width(estimate: Mapping[str, Any] | None, digits: int, *, sign: str = "") -> str:
    """A mean and half the width of its interval, if it has one."""
    if estimate is None:
        return "-"
    text = f"{estimate['mean']:{sign}.{digits}f}"
    return text if estimate["low"] is None else f"{text} ± {estimate['high'] - estimate['mean']:.{digits}f}"


def _target(row: Mapping[str, Any]) -> str:
    if row["target_s"] is None:
        return "not reached"
    text = f"{row['target_s']['mean']:.0f}"
    reached, tried = row["target_s"]["num"], row["reward"]["num"]
    return text if reached == tried else f"{text} ({reached} of {tried})"


def rounds_table(made: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """A row for each round of successive halving."""
    return ["tried", "seeds", "goes on"], [
        [_listed(rung["intervals"]), _listed(rung["seeds"]), _listed(rung["kept"])] for rung in made["rungs"]
    ]


def trials_table(made: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """A row for each trial."""
    header = ["s", "seed", "reward, last steps", "accuracy", "s per step", "s of all steps", "around them"]
    last = made["plan"]["last_steps"]
    return header, [
        [
            str(trial["interval"]),
            str(trial["seed"]),
            f"{statistics.fmean([r for r in trial['rewards'] if r is not None][-last:]):.3f}",
            "-" if trial["accuracy"] is None else f"{trial['accuracy']:.3f}",
            f"{trial['ends_s'][-1] / len(trial['ends_s']):.3f}",
            f"{trial['ends_s'][-1]:.1f}",
            f"{trial['start_up_s']:.1f}",
        ]
        for trial in made["trials"]
    ]


def _listed(values: Iterable[object]) -> str:
    return ", ".join(map(str, values))
