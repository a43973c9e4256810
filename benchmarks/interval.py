"""Reward and time against the sync interval: the quickstart's task through the real engines, run by run.

Every run has the same prompts, seed and number of steps; the interval is all that differs. Shares are of the
time of all steps, start-up and evaluations left out.

    python benchmarks/interval.py --out benchmarks/results/interval.json
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from report import write
from whole_runs import finished_run

from rlstack.telemetry.curves import read_summary
from rlstack.telemetry.timing import PHASES
from rlstack.tuning.interval.intervals import DEFAULT, setting
from rlstack.tuning.interval.trials import Trial
from rlstack.tuning.measure import measured_run, seconds


def main() -> None:
    arguments = parse()
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.runs or Path(scratch)
        rows = [
            row(
                interval,
                seed,
                finished_run(
                    Trial(interval, seed).name,
                    [
                        setting(interval),
                        f"schedule.num_steps={arguments.steps}",
                        f"run.seed={seed}",
                        "schedule.save_every=null",
                    ],
                    folder,
                ),
            )
            for seed in range(arguments.seeds)
            for interval in DEFAULT
        ]
    write(rows, arguments.out, title="sync intervals")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--runs", type=Path, help="folder to keep the runs in; otherwise they are deleted")
    parser.add_argument("--steps", type=int, default=120, help="of each run")
    parser.add_argument("--seeds", type=int, default=1, help="runs per interval")
    return parser.parse_args()


def row(interval: int | None, seed: int, folder: Path) -> dict[str, Any]:
    summary, run = read_summary(folder), measured_run(folder)
    steps_s = sum(seconds(row, "step") for row in run.rows)
    phases = [phase for phase in (*PHASES, "other") if phase != "evaluate"]
    return {
        "s": interval,
        "seed": seed,
        "reward_first20": summary["reward_first20"],
        "reward_last20": summary["reward_last20"],
        "accuracy_final": summary["accuracy_final"],
        "steps_s": steps_s,
        "steady_step_s": run.step_s,
        "syncs": summary["syncs"],
        **{f"{phase}_share": sum(seconds(row, phase) for row in run.rows) / steps_s for phase in phases},
        "engine_busy": run.share("busy/engine"),
        "policy_busy": run.share("busy/policy"),
        "tokens_generated_per_s": summary["tokens"]["generated"] / steps_s,
        "tokens_trained_per_s": summary["tokens"]["trained"] / steps_s,
    }


if __name__ == "__main__":
    main()
