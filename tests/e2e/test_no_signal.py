"""Runs that teach nothing end within 20 steps, with exit status 1, the reason and the model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
REWARDS = """
def constant(problem, answer, responses):
    return [0.5 for _ in responses]

def broken(problem, answer, responses):
    raise RuntimeError("the judge is out")
"""
SMALL = {
    "run.name": "barren",
    "schedule.num_steps": 40,
    "schedule.sync_interval": "null",
    "policy.pipeline_parallel": 1,
    "batch.prompts_per_step": 2,
    "rollout.n": 2,
    "rollout.max_new_tokens": 16,
    "evaluation.tasks": "[]",
    "optimizer.warmup_steps": 0,
}
# What makes the rewards useless, and what the run says of it: "ALARM: ...".
CASES = {
    "constant": (
        {"data.tasks[0].reward": "my_rewards:constant"},
        "no_signal: nothing was learnt in 20 steps: every reward was 0.5",
    ),
    "constant-grpo": (
        {"data.tasks[0].reward": "my_rewards:constant", "objective.name": "grpo"},
        "no_signal: nothing was learnt in 20 steps: every reward was 0.5",
    ),
    "raises": ({"data.tasks[0].reward": "my_rewards:broken"}, "reward_errors: reward/missing is 1"),
    # An answer without a box, as those that are cut off are, is wrong without the verifier.
    "verifier-fails": (
        {"reward.timeout_s": 1e-6, "rollout.max_new_tokens": 40},
        "reward_errors: reward/missing is ",
    ),
    "too-few-tokens": (
        {"rollout.max_new_tokens": 4},  # the shortest answers to the tiny task have 7
        "no_signal: nothing was learnt in 20 steps: every reward was 0, and 99% of the answers end at the",
    ),
}


@pytest.mark.slow
@pytest.mark.thorough
@pytest.mark.parametrize("name", CASES)
def test_a_run_that_teaches_nothing_ends_within_20_steps_and_says_why(name: str, tmp_path: Path) -> None:
    changes, reason = CASES[name]
    (tmp_path / "my_rewards.py").write_text(REWARDS)
    settings = SMALL | {"run.dir": tmp_path} | changes
    command = [Path(sys.executable).with_name("rlstack"), "train", ROOT / "configs/quickstart.yaml"]
    done = subprocess.run(
        [*command, *(f"{key}={value}" for key, value in settings.items())],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 1, done.stdout[-3000:] + done.stderr[-3000:]
    assert f"error: StoppedByAlarm: {reason}" in done.stderr
    folder = tmp_path / "barren"
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["status"] == "stopped" and summary["steps"] <= 20
    assert "stop" in [row["action"] for row in summary["alarms"]]
    assert (folder / "model" / "config.json").is_file()
