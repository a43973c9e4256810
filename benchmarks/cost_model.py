"""The cost model's predictions against measured runs, for intervals and batches that it was not fitted on.

The parts are fitted to the short calibration runs of the quickstart, made before the cases and once more
after them, since a machine's speed drifts. Each case is run through the real engines and predicted from those
parts alone. The learning rate is next to nothing, so that the policy of every run answers alike, at the
lengths of the calibration. `--runs` keeps the runs: the benchmark goes on where it was interrupted.

    python benchmarks/cost_model.py --out benchmarks/results/cost_model.json
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from report import write
from whole_runs import CONFIG, STILL, measure

from rlstack.config.load import load_config
from rlstack.tuning.calibration import calibration_runs
from rlstack.tuning.cost_model import predict
from rlstack.tuning.fit import Calibrated, calibrate
from rlstack.tuning.measure import MeasuredRun
from rlstack.tuning.prediction import POLICY


@dataclass(frozen=True, slots=True)
class Case:
    sync_interval: int | None
    num_steps: int  # enough for some intervals after the first
    prompts: int = 16
    lag: int = 0
    overlap: bool = True

    @property
    def name(self) -> str:
        interval = "offline" if self.sync_interval is None else f"s{self.sync_interval}"
        return f"{interval}-lag{self.lag}-prompts{self.prompts}-{'overlapped' if self.overlap else 'in-turn'}"

    @property
    def settings(self) -> tuple[str, ...]:
        return (
            f"schedule.sync_interval={'null' if self.sync_interval is None else self.sync_interval}",
            f"schedule.num_steps={self.num_steps}",
            f"schedule.lag={self.lag}",
            "schedule.save_every=null",
            f"batch.prompts_per_step={self.prompts}",
            f"rollout.overlap={str(self.overlap).lower()}",
            "evaluation.num_prompts=1",
        )


CASES = (
    Case(1, 30),
    Case(2, 30),
    Case(5, 40),
    Case(20, 60),
    Case(None, 60),
    Case(10, 50, prompts=8),
    Case(10, 30, prompts=32),
    Case(1, 30, lag=1),
    Case(10, 50),
    Case(1, 30, prompts=32),
    Case(10, 30, overlap=False),
)


def main() -> None:
    arguments = parse()
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.runs or Path(scratch)
        before = calibration(folder)
        measured = [measure(case.name, (*STILL, *case.settings), folder) for case in CASES]
        calibrated = calibrate([*before, *calibration(folder, "-again")])
        rows = [row(case, calibrated, run) for case, run in zip(CASES, measured, strict=True)]
    report_parts(calibrated)
    write(rows, arguments.out, title="predicted and measured step times")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--runs", type=Path, help="folder to keep the runs in; otherwise they are deleted")
    return parser.parse_args()


def calibration(folder: Path, suffix: str = "") -> list[MeasuredRun]:
    runs = calibration_runs(load_config(CONFIG))
    return [measure(run.name + suffix, (*STILL, *run.settings), folder) for run in runs]


def row(case: Case, calibrated: Calibrated, measured: MeasuredRun) -> dict[str, Any]:
    """Nothing of `measured` goes into the prediction but what was asked for: its setup."""
    predicted = predict(calibrated.parts, measured.setup)
    return {
        "s": case.sync_interval,
        "lag": case.lag,
        "prompts": case.prompts,
        "overlap": case.overlap,
        "predicted_step_s": predicted.step_s,
        "measured_step_s": measured.step_s,
        "error": predicted.step_s / measured.step_s - 1,
        "predicted_engine_busy": 1 - predicted.engine_idle_share,
        "measured_engine_busy": measured.share("busy/engine"),
        "predicted_policy_busy": predicted.roles[POLICY].busy_share,
        "measured_policy_busy": measured.share("busy/policy"),
    }


def report_parts(calibrated: Calibrated) -> None:
    parts = calibrated.parts
    figures: Sequence[tuple[str, float]] = [
        (f"{name}.{field}", getattr(getattr(parts, name), field))
        for name in ("generation", "training", "scoring", "controller", "sync", "sharing")
        for field in type(getattr(parts, name)).__dataclass_fields__
        if getattr(getattr(parts, name), field)
    ]
    for name, value in figures:
        error = calibrated.errors.get(name)
        print(f"{name:40} {value:10.4g}" + (f" +- {error:.2g}" if error is not None else ""))
    for note in calibrated.notes:
        print(note)


if __name__ == "__main__":
    main()
