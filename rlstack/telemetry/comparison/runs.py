"""The runs of a comparison, and how each has ended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rlstack.telemetry.curves import RunLog, read_rows, read_run, read_settings, read_summary
from rlstack.telemetry.log_files import METRICS
from rlstack.telemetry.metrics import over_steps
from rlstack.telemetry.summary import summarise

GOING_ON = "going on"

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedRun:
    log: RunLog  # called by what tells its folder from the others
    settings: Mapping[str, Any]  # config.yaml
    summary: Row  # summary.json; of a run that is going on, what can be said of its steps so far
    step_s: float  # of all its steps

    @property
    def name(self) -> str:
        return self.log.name

    @property
    def evaluations(self) -> list[Row]:
        """With a held-out accuracy, in the order of the versions."""
        return [row for row in self.summary["evaluations"] if row.get("eval/accuracy") is not None]


def read_runs(folders: Sequence[Path]) -> list[ComparedRun]:
    """The runs in these folders, each once, in the order of the first of each.

    Raises ConfigError for a folder that is not that of a run, or whose run has not taken a step.
    """
    found: dict[Path, Path] = {}
    for folder in folders:
        found.setdefault(folder.resolve(), folder)
    names = Counter(resolved.name for resolved in found)
    return [
        _read(folder, name=resolved.name if names[resolved.name] == 1 else str(folder))
        for resolved, folder in found.items()
    ]


def _read(folder: Path, *, name: str) -> ComparedRun:
    log = read_run(folder)
    steps = list(read_rows(folder / METRICS))
    return ComparedRun(
        log=replace(log, name=name),
        settings=read_settings(folder),
        summary=_summary(folder, steps),
        step_s=over_steps("time/step_s", steps) or 0.0,
    )


def _summary(folder: Path, steps: Sequence[Row]) -> Row:
    try:
        return read_summary(folder)
    except FileNotFoundError:
        evaluations = {row["eval/version"]: row for row in steps if "eval/version" in row}
        return summarise(steps, status=GOING_ON, evaluations=evaluations, wall_s=0.0, phase_s={})
