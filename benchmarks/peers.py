"""TRL's trainers and rlstack on the tiny task, side by side: time per step, and time to a reward.

Both learn the quickstart's fraction sums from the same seed model, with the same order of prompts, verdicts,
sampling, optimiser and precision (fp32), on all cores of this machine; the cases take turns. TRL's GRPO takes
the same 16 prompts x 8 rollouts a step. Its online DPO samples two answers of each prompt and no other
number: its 128 rollouts are of 64 prompts. It trains on all of them, against a fixed reference; ours on one
pair of each prompt that has right and wrong answers, against a reference that follows the generator. TRL
samples by generate() of transformers, once in one process with a thread for each core, once with DDP in one
process for each core.

Start-up, evaluations and the first steps are left out. `ratio_*` is to TRL's faster layout for the same
objective. `generate_s` and `reward_s` are the time that TRL spends in them and rlstack's loop waits for them.

    python3.11 -m venv .venv-trl && .venv-trl/bin/pip install -r benchmarks/peers_trl/requirements.txt
    python benchmarks/peers.py --out benchmarks/results/peers.json
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import accumulate
from pathlib import Path

from peers_steps import Step, rlstack_steps, summary, with_ratios
from report import write
from trl_runs import PROGRAM, ROOT, trl_run
from whole_runs import CONFIG, finished_run

from rlstack.config.load import load_config
from rlstack.telemetry.curves import read_rows

SKIPPED = 20  # steps: two intervals of s = 10
WINDOW = 10  # steps that a reward is the mean of


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    stack: str
    objective: str
    interval: int  # s
    layout: str
    processes: int = 1  # of TRL
    settings: tuple[str, ...] = ()  # of rlstack


ONLINE = ("schedule.sync_interval=1", "policy.pipeline_parallel=1", "policy.data_parallel=2")
GRPO = ("objective.name=grpo", "schedule.reference_sync=never")
CASES = {
    "trl-grpo": Case(stack="trl", objective="grpo", interval=1, layout="1 process"),
    "trl-grpo-ddp": Case(stack="trl", objective="grpo", interval=1, layout="DDP", processes=2),
    "trl-dpo": Case(stack="trl", objective="dpo", interval=1, layout="1 process"),
    "trl-dpo-ddp": Case(stack="trl", objective="dpo", interval=1, layout="DDP", processes=2),
    "rlstack-dpo-s10": Case(stack="rlstack", objective="dpo", interval=10, layout="PP2"),
    "rlstack-dpo-s10-one": Case(
        stack="rlstack",
        objective="dpo",
        interval=10,
        layout="1 rank",
        settings=("policy.pipeline_parallel=1",),
    ),
    "rlstack-dpo-s1": Case(stack="rlstack", objective="dpo", interval=1, layout="DP2", settings=ONLINE),
    "rlstack-grpo-s1": Case(
        stack="rlstack", objective="grpo", interval=1, layout="DP2", settings=ONLINE + GRPO
    ),
}


def main() -> None:
    arguments = parse()
    runs: dict[str, list[list[Step]]] = {name: [] for name in arguments.cases}
    versions = {"rlstack": version("rlstack-megatron")}
    with tempfile.TemporaryDirectory() as scratch:
        folder = (arguments.runs or Path(scratch)).resolve()
        for repetition in range(arguments.repetitions):
            for name in arguments.cases:
                case, run = CASES[name], f"{name}-{repetition}"
                if case.stack == "trl":
                    steps, versions["trl"] = trl_run(
                        folder / run,
                        python=arguments.trl / "bin" / "python",
                        objective=case.objective,
                        processes=case.processes,
                        num_steps=arguments.steps,
                    )
                else:
                    steps = rlstack_run(run, case, folder, num_steps=arguments.steps)
                runs[name].append(steps)
    rows = [
        {
            "stack": (case := CASES[name]).stack,
            "version": versions[case.stack],
            "objective": case.objective,
            "s": case.interval,
            "layout": case.layout,
            **summary(of_case, skipped=SKIPPED, goal=arguments.goal, window=WINDOW),
        }
        for name, of_case in runs.items()
    ]
    write(with_ratios(rows), arguments.out, title=f"peers: time to reward {arguments.goal:g}")
    if arguments.out is not None:
        write_curves(runs, arguments.out.with_name(f"{arguments.out.stem}_curves.csv"))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--out", type=Path, help="JSON file to write; a CSV of the reward curves goes beside it"
    )
    parser.add_argument("--runs", type=Path, help="folder to keep the runs in; those that are there count")
    parser.add_argument("--trl", type=Path, default=ROOT / ".venv-trl", help="TRL's virtual environment")
    parser.add_argument("--steps", type=int, default=120, help="of each run")
    parser.add_argument("--repetitions", type=int, default=2, help="runs of each case")
    parser.add_argument("--goal", type=float, default=0.6, help="mean reward whose time is measured")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    arguments = parser.parse_args()
    if arguments.steps <= SKIPPED:
        parser.error(f"--steps {arguments.steps}: more than {SKIPPED} are accepted, for so many are left out")
    if not (arguments.trl / "bin" / "python").exists():
        how = PROGRAM.with_name("requirements.txt").relative_to(ROOT)
        parser.error(f"--trl {arguments.trl}: holds no environment; {how} says how to make one")
    return arguments


def rlstack_run(name: str, case: Case, folder: Path, *, num_steps: int) -> list[Step]:
    settings = [
        f"schedule.num_steps={num_steps}",
        f"schedule.sync_interval={case.interval}",
        "schedule.save_every=null",
        "evaluation.tasks=[]",
        *case.settings,
    ]
    path = finished_run(name, settings, folder)
    config = load_config(CONFIG)
    per_step = config.batch.prompts_per_step * config.rollout.n
    return rlstack_steps(read_rows(path / "metrics.jsonl"), rollouts_per_step=per_step)


def write_curves(runs: Mapping[str, Sequence[Sequence[Step]]], out: Path) -> None:
    """Every step of every run: when it ended, counted from the first one's start, and its mean reward."""
    with out.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["case", "repetition", "step", "time_s", "reward"])
        for name, repetitions in runs.items():
            for repetition, steps in enumerate(repetitions):
                times = accumulate(step.step_s for step in steps)
                for number, (step, time_s) in enumerate(zip(steps, times, strict=True), start=1):
                    table.writerow([name, repetition, number, f"{time_s:.3f}", f"{step.reward:.4f}"])


if __name__ == "__main__":
    main()
