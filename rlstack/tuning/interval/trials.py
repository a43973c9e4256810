"""A trial: one training run with its own sync interval and seed, and what is measured on it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

from rlstack.telemetry.curves import read_rows, read_summary
from rlstack.telemetry.timing import PHASES
from rlstack.tuning.interval.intervals import Interval, label, setting

PARTS = (*(phase for phase in PHASES if phase != "evaluate"), "other")  # of a step; evaluations are left out


class Trial(NamedTuple):
    interval: Interval
    seed: int

    @property
    def name(self) -> str:
        """Of the trial's folder."""
        return f"{'offline' if self.interval is None else f's{self.interval}'}-seed{self.seed}"

    def __str__(self) -> str:
        return f"s = {label(self.interval)}, seed {self.seed}"

    def settings(self, folder: Path, *, num_steps: int) -> list[str]:
        """What the trial sets over the settings that all trials share, as KEY=VALUE."""
        return [
            *folder_settings(folder, self.name),
            f"run.seed={self.seed}",
            f"schedule.num_steps={num_steps}",
            setting(self.interval),
        ]


def folder_settings(folder: Path, name: str) -> list[str]:
    """What makes a run's folder `folder`/`name`, as KEY=VALUE."""
    return [f"run.name={name}", f"run.dir={json.dumps(str(folder))}"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialResult:
    """One finished trial. Time counts from the beginning of its first step: start-up and evaluations are not
    in it, so that a short trial speaks for a long run."""

    interval: Interval
    seed: int
    rewards: tuple[float | None, ...]  # mean reward of each step's rollouts
    versions: tuple[int, ...]  # that wrote them
    ends_s: tuple[float, ...]  # of each step
    part_s: Mapping[str, float]  # of all steps, by PARTS
    syncs: int
    sync_bytes: int
    tokens_generated: int
    accuracy: float | None  # held-out, of the last version
    start_up_s: float  # and evaluations, saving and the end: what `ends_s` leaves out

    @property
    def trial(self) -> Trial:
        return Trial(self.interval, self.seed)

    @property
    def num_steps(self) -> int:
        return len(self.rewards)

    @property
    def wall_s(self) -> float:
        """Of all steps."""
        return self.ends_s[-1]

    @property
    def step_s(self) -> float:
        return self.wall_s / self.num_steps

    @classmethod
    def read(cls, folder: Path, trial: Trial) -> TrialResult:
        """From the folder of a completed run."""
        return cls.of(trial, list(read_rows(folder / "metrics.jsonl")), read_summary(folder))

    @classmethod
    def of(cls, trial: Trial, steps: Sequence[Mapping[str, Any]], summary: Mapping[str, Any]) -> TrialResult:
        """From rows of metrics.jsonl and summary.json."""
        durations_s = [row["time/step_s"] - row["time/evaluate_s"] for row in steps]
        part_s = {part: sum(row[f"time/{part}_s"] for row in steps) for part in PARTS if part != "other"}
        return cls(
            interval=trial.interval,
            seed=trial.seed,
            rewards=tuple(row.get("reward/mean") for row in steps),
            versions=tuple(row["step"] - 1 - row["version_age"] for row in steps),
            ends_s=tuple(accumulate(durations_s)),
            part_s=part_s | {"other": sum(durations_s) - sum(part_s.values())},
            syncs=summary["syncs"],
            sync_bytes=sum(row.get("sync/bytes", 0) for row in steps),
            tokens_generated=summary["tokens"]["generated"],
            accuracy=summary["accuracy_final"],
            start_up_s=summary["wall_s"] - sum(durations_s),
        )
