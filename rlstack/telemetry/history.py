"""What a run has reported so far, which can be read back from its files but for some evaluations."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlstack.errors import ConfigError
from rlstack.telemetry.curves import read_rows
from rlstack.telemetry.log_files import ALARMS, INTERVALS, METRICS

Row = Mapping[str, Any]


@dataclass(slots=True, kw_only=True)
class History:
    steps: list[Row] = field(default_factory=list)  # as in metrics.jsonl
    alarms: list[Row] = field(default_factory=list)  # as in alarms.jsonl
    intervals: list[Row] = field(default_factory=list)  # as in intervals.jsonl
    evaluations: dict[int, Row] = field(default_factory=dict)  # eval/*, by version

    @classmethod
    def read(cls, folder: Path, evaluations: Iterable[Row], lengths: Mapping[str, int]) -> History:
        """That of the run in `folder`, with these evaluations, which have their eval/version.

        lengths: how much of each file is read, in bytes; nothing of one that is not among them.

        Raises ConfigError if a file is damaged or cannot be read.
        """
        rows = {
            name: _rows_up_to(folder / name, lengths.get(name, 0)) for name in (METRICS, ALARMS, INTERVALS)
        }
        return cls(
            steps=[_measured(row) for row in rows[METRICS]],
            alarms=rows[ALARMS],
            intervals=rows[INTERVALS],
            evaluations={row["eval/version"]: row for row in evaluations},
        )

    @property
    def last_step(self) -> int:
        """The last one that was logged; 0 before the first."""
        return int(self.steps[-1]["step"]) if self.steps else 0

    def add_step(self, row: Row) -> None:
        """Take a row of metrics.jsonl, with its evaluation if it has one."""
        self.steps.append(row)
        if "eval/version" in row:
            self.add_evaluation({name: value for name, value in row.items() if name.startswith("eval/")})

    def add_evaluation(self, metrics: Row) -> None:
        self.evaluations[metrics["eval/version"]] = metrics


def rows_of(path: Path) -> list[Row]:
    """Of a file of lines; none of one that is not there."""
    return list(read_rows(path)) if path.exists() else []


def _rows_up_to(path: Path, num_bytes: int) -> list[Row]:
    try:
        return list(read_rows(path, num_bytes=num_bytes)) if num_bytes else []
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); try again once it can") from None


def _measured(row: Row) -> Row:
    """The row as it was before JSON, in which null stands for what is not finite."""
    return {
        # An evaluation's null is of a measure that could not be taken.
        name: math.nan if value is None and not name.startswith("eval/") else value
        for name, value in row.items()
    }
