"""What a logger's process is told, and what it makes of it. Nothing here knows of processes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

Scalar = bool | int | float | str | None
Values = dict[str, float]  # by the names of metrics.jsonl


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Of a run, as JSON has it."""

    target: Any  # the logger's own setting
    name: str  # the run's
    folder: str  # the run's
    settings: dict[str, Scalar]  # all of them, by path
    changed: list[str]  # those whose value is not the default
    ids: dict[str, str]  # what `Opened.ids` was when this run began; {} for a new one


class Opened(NamedTuple):
    ids: dict[str, str]  # with which the same run is gone on with
    place: str  # where to look


class Backend(Protocol):
    """Made once the run's folder is there. What it raises ends the logger, and nothing else."""

    def open(self, start: Start) -> Opened:
        """Begin the run, or go on with it."""

    def log(self, step: int, values: Values) -> None:
        """Take a step's metrics, or a part of them."""

    def alarm(self, step: int, title: str, text: str) -> None:
        """Take an alarm that the step has raised."""

    def rewind(self, step: int) -> None:
        """Go on as after `step`: the steps above it come again."""

    def finish(self, status: str, summary: Mapping[str, Scalar]) -> None:
        """End the run. status: as in summary.json; `summary`, its single values, may be empty."""


def numbers(row: Mapping[str, Any]) -> Values:
    """What can be drawn of a row of metrics: finite numbers, a truth as 0 or 1, without the step itself."""
    return {
        name: float(value)
        for name, value in row.items()
        if isinstance(value, bool | int | float) and math.isfinite(value) and name != "step"
    }


def as_given(path: Path) -> str:
    """`path` as a user in the working directory would give it."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def single_values(summary: Mapping[str, Any], prefix: str = "summary/") -> Iterator[tuple[str, Scalar]]:
    """Numbers and words of summary.json under their paths; without lists and what is not measured."""
    for name, value in summary.items():
        if isinstance(value, Mapping):
            yield from single_values(value, f"{prefix}{name}/")
        elif isinstance(value, str | bool | int | float):
            yield prefix + name, value
