"""Train the quickstart with some settings, in one go or resumed once, and look for faults in its record.

python tools/gpu_check/jobs/training_run.py [--steps N] [--resume-after N] [SETTING=VALUE ...]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from details import leave

CONFIG = Path(__file__).parents[3] / "configs" / "quickstart.yaml"
LEARNS_AFTER = 100  # steps after which the reward must have grown
MAX_MISMATCH = {"fp32": 1e-3, "bf16": 0.05, "fp8": 0.3}  # nats, a step's mean between engine and policy
# One rank, and few prompts where the run is short.
ONE_RANK = ("policy.pipeline_parallel=1",)
SHORT = (
    "schedule.sync_interval=2",
    "batch.prompts_per_step=8",
    "evaluation.num_prompts=8",
    "evaluation.n=2",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--resume-after", type=int)
    parser.add_argument("settings", nargs="*")
    given = parser.parse_args()
    settings = [*ONE_RANK, *(SHORT if given.steps < LEARNS_AFTER else ()), *given.settings]
    with tempfile.TemporaryDirectory(prefix="gpu-check-run-") as folder:
        stops = [given.steps] if given.resume_after is None else [given.resume_after, given.steps]
        for index, stop in enumerate(stops):
            train([*settings, f"run.dir={folder}", f"schedule.num_steps={stop}"], resume=index > 0)
        run = Path(folder) / "check"
        lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        steps = [json.loads(line) for line in lines]
        summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    leave(cuda=bool(summary["hardware"]["gpus"]), **figures(steps, summary))
    precision = next((s.partition("=")[2] for s in settings if s.startswith("policy.precision=")), "fp32")
    if found := problems(steps, summary, num_steps=given.steps, max_mismatch=MAX_MISMATCH[precision]):
        raise SystemExit("; ".join(found))


def train(settings: Sequence[str], *, resume: bool) -> None:
    """Run `rlstack train`; exits with its status if that is not 0."""
    rlstack = Path(sys.executable).with_name("rlstack")
    command = [rlstack, "train", CONFIG, "run.name=check", *settings, *(["--resume"] if resume else [])]
    if status := subprocess.run(command, check=False).returncode:
        raise SystemExit(status)


def figures(steps: Sequence[Mapping[str, Any]], summary: Mapping[str, Any]) -> dict[str, Any]:
    """The facts of a run that are kept."""
    return {
        "steps": len(steps),
        "wall_s": summary["wall_s"],
        "reward_first20": summary["reward_first20"],
        "reward_last20": summary["reward_last20"],
        "accuracy_final": summary["accuracy_final"],
        "mismatch_logprob_abs_mean": max(_values(steps, "mismatch/logprob_abs_mean"), default=None),
        "syncs_verified": sum(_values(steps, "sync/verified")),
        "throughput": summary.get("throughput"),
    }


def problems(
    steps: Sequence[Mapping[str, Any]], summary: Mapping[str, Any], *, num_steps: int, max_mismatch: float
) -> list[str]:
    """The faults of a run that has ended by itself; [] if there are none."""
    found = []
    if summary["status"] != "completed":
        found.append(f"its status is {summary['status']}")
    if [step["step"] for step in steps] != list(range(1, num_steps + 1)):
        found.append(f"it logged the steps {[step['step'] for step in steps]}")
    if not any(_values(steps, "sync/verified")):
        found.append("no sync was verified")
    mismatches = _values(steps, "mismatch/logprob_abs_mean")
    if not mismatches or not max(mismatches) < max_mismatch:
        found.append(f"engine and policy differ by {max(mismatches, default=None)} nats")
    if not all(step.get("grad_norm", 0.0) > 0 for step in steps):
        found.append("a step had no gradient")
    if num_steps >= LEARNS_AFTER and not summary["reward_last20"] > summary["reward_first20"]:
        found.append("the reward has not grown")
    return found


def _values(steps: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    return [step[name] for step in steps if step.get(name) is not None]


if __name__ == "__main__":
    main()
