"""What a run's folder holds, read once for its report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rlstack.errors import ConfigError
from rlstack.telemetry.curves import read_rows, read_settings, read_summary
from rlstack.telemetry.log_files import GPUS, TIMELINE
from rlstack.telemetry.nvml import Sample
from rlstack.telemetry.occupancy import Piece
from rlstack.telemetry.run_timeline import STEP, laps, read_samples, read_timeline
from rlstack.telemetry.time_tables import pieces_of_steps
from rlstack.telemetry.timeline import Span

Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """A run that has ended, or that is going on."""

    path: Path
    settings: dict[str, Any]  # config.yaml
    steps: Sequence[Row]  # metrics.jsonl
    summary: Row | None  # summary.json; None while the run is going on
    spans: Sequence[Span]  # timeline.jsonl; empty for a run without one
    samples: Sequence[Sample]  # gpus.jsonl; empty without GPUs

    @property
    def name(self) -> str:
        return str(self.settings["run"]["name"])

    @cached_property
    def step_laps(self) -> list[Span]:
        """The controller's, one for each step."""
        return [lap for lap in laps(self.spans) if lap.phase == STEP]

    @cached_property
    def pieces(self) -> dict[str, list[Piece]]:
        """What each role did in the steps; {} without a step."""
        return pieces_of_steps(self.spans, self.step_laps)

    def evaluations(self) -> list[Row]:
        """Of the versions that were evaluated, in order; those outside the steps are in the summary only."""
        if self.summary is not None:
            return list(self.summary["evaluations"])
        return [row for row in self.steps if "eval/version" in row]


def read_record(folder: Path | str) -> RunRecord:
    """The run in `folder`.

    Raises ConfigError if the folder is not that of a run.
    """
    folder = Path(folder)
    timeline, gpus, summary = (folder / name for name in (TIMELINE, GPUS, "summary.json"))
    try:
        return RunRecord(
            path=folder,
            settings=read_settings(folder),
            steps=list(read_rows(folder / "metrics.jsonl")),
            summary=read_summary(folder) if summary.exists() else None,
            spans=list(read_timeline(timeline)) if timeline.exists() else [],
            samples=list(read_samples(gpus)) if gpus.exists() else [],
        )
    except OSError as error:
        problem = f"{error.strerror}: {error.filename}"
        raise ConfigError(f"{folder}: is not the folder of a run ({problem}); give one") from None
