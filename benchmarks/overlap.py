"""A run whose parts work side by side against the same run in turns, through the real engines.

The quickstart's task. Modes take turns, run by run, and medians over the repetitions are reported of the
steps after the first interval, start-up, evaluations and the first interval left out. `metrics_digest` is of
all metrics of all steps but times: equal digests are equal results. `ratio` is to the blocking run of that
schedule, in which sampling, scoring and training follow each other.

    python benchmarks/overlap.py --out benchmarks/results/overlap.json
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from report import write
from whole_runs import finished_run

from rlstack.telemetry.curves import read_rows
from rlstack.telemetry.metrics import is_timing

SCHEDULES = {"s10": (10, 0), "s10-lag1": (10, 1), "s1": (1, 0), "s1-lag1": (1, 1)}  # s and lag
REPETITIONS = {"s10": 3}  # of each mode; one of the others
MODES = {"blocking": False, "overlapped": True}
PHASES = ("generate_wait", "reward", "train", "sync")


def main() -> None:
    arguments = parse()
    runs: dict[tuple[str, str], list[list[Mapping[str, Any]]]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.runs or Path(scratch)
        for schedule in arguments.schedules:
            for repetition in range(arguments.repetitions or REPETITIONS.get(schedule, 1)):
                for mode in MODES:
                    name = f"{schedule}-{mode}-{repetition}"
                    run = finished_run(name, settings(schedule, mode, arguments.steps), folder)
                    runs[schedule, mode].append(list(read_rows(run / "metrics.jsonl")))
    rows = [row(schedule, mode, runs[schedule, mode]) for schedule, mode in runs]
    blocking = {r["schedule"]: r["wall_s"] for r in rows if r["mode"] == "blocking"}
    write(
        [r | {"ratio": r["wall_s"] / blocking[r["schedule"]]} for r in rows], arguments.out, title="overlap"
    )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--runs", type=Path, help="folder to keep the runs in; otherwise they are deleted")
    parser.add_argument("--steps", type=int, default=40, help="of each run")
    parser.add_argument(
        "--repetitions", type=int, help="runs of each mode; otherwise 3 of s10, 1 of the others"
    )
    parser.add_argument("--schedules", nargs="+", choices=SCHEDULES, default=list(SCHEDULES))
    return parser.parse_args()


def settings(schedule: str, mode: str, num_steps: int) -> list[str]:
    interval, lag = SCHEDULES[schedule]
    return [
        f"schedule.num_steps={num_steps}",
        f"schedule.sync_interval={interval}",
        f"schedule.lag={lag}",
        "schedule.save_every=null",
        f"rollout.overlap={str(MODES[mode]).lower()}",
        "evaluation.tasks=[]",
    ]


def row(schedule: str, mode: str, runs: Sequence[Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """Medians over `runs`, each the rows of a metrics.jsonl."""
    first = sum(SCHEDULES[schedule])  # the first steps whose rollouts are of the initial version
    steady = [run[first:] for run in runs]
    walls = [sum(step["time/step_s"] for step in steps) for steps in steady]
    digests = {metrics_digest(run) for run in runs}
    return {
        "schedule": schedule,
        "mode": mode,
        "runs": len(runs),
        "steps": len(steady[0]),
        "wall_s": statistics.median(walls),
        "fastest_s": min(walls),
        "step_s": statistics.median(walls) / len(steady[0]),
        **{f"{phase}_share": share(f"time/{phase}_s", steady, walls) for phase in PHASES},
        **{f"{roles}_busy": busy(f"busy/{roles}", steady) for roles in ("engine", "policy")},
        "generated_tokens_per_s": share("tokens/generated", steady, walls),
        "trained_tokens_per_s": share("tokens/trained", steady, walls),
        "metrics_digest": " or ".join(sorted(digests)),  # one, if repetitions have the same results
    }


def share(name: str, steady: Sequence[Sequence[Mapping[str, Any]]], walls: Sequence[float]) -> float:
    """Median over the runs of the metric's sum over the steps per second of their time."""
    sums = [sum(step.get(name, 0.0) for step in steps) for steps in steady]
    return statistics.median(total / wall for total, wall in zip(sums, walls, strict=True))


def busy(name: str, steady: Sequence[Sequence[Mapping[str, Any]]]) -> float:
    """Mean share of the time that roles of a kind were at work, steps weighed by their time."""
    steps = [step for run in steady for step in run if name in step]
    return sum(s[name] * s["time/step_s"] for s in steps) / sum(s["time/step_s"] for s in steps)


def metrics_digest(rows: Sequence[Mapping[str, Any]]) -> str:
    """Equal for runs with the same results; times do not count."""
    plain = [{name: value for name, value in row.items() if not is_timing(name)} for row in rows]
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]


if __name__ == "__main__":
    main()
