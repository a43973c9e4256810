"""Train the tiny recipes one after the other, then hold the paper's findings against them:

    python tools/sweep.py --out runs/sweep [--seeds 0 1] [--only online grpo] [--set schedule.num_steps=20]

A recipe is a file of configs/tiny/recipes; its runs are the folders online-seed0, online-seed1 and so on in
--out. A run that is finished there with the same settings is kept, so an interrupted sweep goes on where it
was; a run that fails is named and the others go on. Leaves table.md, runs.csv, findings.md and figures/ of
all recipes with finished runs of these seeds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from sweep_report import write_report
from sweep_table import RunResult, alarm_names

from rlstack.errors import ConfigError
from rlstack.telemetry.clock import clock
from rlstack.telemetry.curves import read_summary
from rlstack.tuning import training_process
from rlstack.tuning.training_process import train_in_process

RECIPES = Path(__file__).parents[1] / "configs" / "tiny" / "recipes"
DEFAULT = (
    *("offline", "s50", "s10", "s5", "online"),
    *("grpo", "group_dpo", "combined", "nll", "entropy", "no_reference_sync"),
)


class Run(NamedTuple):
    recipe: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.recipe}-seed{self.seed}"


def main() -> int:
    """0 if every run is finished, 1 if one failed, 2 for a usage error, 130 after Ctrl-C."""
    known = sorted(path.stem for path in RECIPES.glob("*.yaml"))
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="for runs and report")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1], metavar="SEED", help="(0 1)")
    parser.add_argument(
        "--only",
        nargs="+",
        default=DEFAULT,
        choices=known,
        metavar="RECIPE",
        help=f"of {', '.join(known)}; without it {', '.join(DEFAULT)}",
    )
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="settings for every run")
    arguments = parser.parse_args()
    runs = [Run(recipe, seed) for seed in arguments.seeds for recipe in dict.fromkeys(arguments.only)]
    try:
        todo = [run for run in runs if not is_finished(run, arguments.out, arguments.set)]
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    try:
        failed = train_all(todo, arguments.out, arguments.set, num_kept=len(runs) - len(todo))
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on from here")
        return 130
    order = [*DEFAULT, *(recipe for recipe in known if recipe not in DEFAULT)]
    every = [Run(recipe, seed) for recipe in order for seed in arguments.seeds]
    report([run for run in every if is_finished(run, arguments.out, arguments.set)], arguments.out)
    for run in failed:
        print(f"failed: {run.name}, see {arguments.out / run.name}.log")
    return 1 if failed else 0


def train_all(todo: Sequence[Run], out: Path, overrides: Sequence[str], *, num_kept: int) -> list[Run]:
    """Train them one after the other; those that failed."""
    out.mkdir(parents=True, exist_ok=True)
    print(f"{len(todo)} runs to train, {num_kept} are finished")
    failed: list[Run] = []
    wall_s: dict[str, list[float]] = {}
    for i, run in enumerate(todo):
        left = remaining_s(todo[i:], wall_s)
        eta = "" if left is None else f", about {clock(left)} left"
        print(f"[{i + 1}/{len(todo)}] {run.name}{eta}", flush=True)
        started = time.monotonic()
        exit_status = train(run, out, overrides)
        if is_finished(run, out, overrides):
            wall_s.setdefault(run.recipe, []).append(time.monotonic() - started)
            print(f"    {in_short(out / run.name)}", flush=True)
        else:
            failed.append(run)
            print(f"    failed with exit status {exit_status}: {out / run.name}.log", flush=True)
    return failed


def train(run: Run, out: Path, overrides: Sequence[str]) -> int:
    """The exit status of `rlstack train`; what it prints is in NAME.log next to the run's folder."""
    return train_in_process(recipe_file(run), settings_of(run, out, overrides), log=out / f"{run.name}.log")


def recipe_file(run: Run) -> Path:
    """The YAML file of the run's recipe."""
    return RECIPES / f"{run.recipe}.yaml"


def settings_of(run: Run, out: Path, overrides: Sequence[str]) -> list[str]:
    """What the run sets over its recipe, as KEY=VALUE."""
    return [*overrides, f"run.name={run.name}", f"run.dir={json.dumps(str(out))}", f"run.seed={run.seed}"]


def is_finished(run: Run, out: Path, overrides: Sequence[str]) -> bool:
    """Whether the run's folder holds a finished run of these very settings."""
    return training_process.is_finished(recipe_file(run), settings_of(run, out, overrides))


def remaining_s(todo: Sequence[Run], wall_s: Mapping[str, Sequence[float]]) -> float | None:
    """Seconds that the runs will take: as other seeds of the recipe did, else the mean; None: unknown."""
    if not wall_s:
        return None
    means = {recipe: statistics.fmean(seconds) for recipe, seconds in wall_s.items()}
    return sum(means.get(run.recipe, statistics.fmean(means.values())) for run in todo)


def in_short(folder: Path) -> str:
    """One line of what came of a run."""
    summary = read_summary(folder)
    accuracy = "-" if summary["accuracy_final"] is None else f"{summary['accuracy_final']:.3f}"
    alarms = ", ".join(alarm_names(summary))
    return (
        f"{summary['status']} in {clock(summary['wall_s'])}: reward {summary['reward_first20']:.2f} -> "
        f"{summary['reward_last20']:.2f}, accuracy {accuracy}" + (f", alarms: {alarms}" if alarms else "")
    )


def report(runs: Sequence[Run], out: Path) -> None:
    """Write and name what the finished `runs` come to."""
    results = [RunResult.read(out / run.name, recipe=run.recipe, seed=run.seed) for run in runs]
    for path in write_report(results, out):
        print(path)


if __name__ == "__main__":
    sys.exit(main())
