"""Alarms in a short run of the real thing: what they do to the ranks, and how a stopped run ends."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.slow


@pytest.mark.thorough
def test_one_alarm_lowers_the_learning_rate_and_another_stops_the_run(tmp_path):
    settings = {
        "run.name": "alarms",
        "run.dir": tmp_path,
        "schedule.num_steps": 4,
        "schedule.sync_interval": 2,
        "batch.prompts_per_step": 8,
        "optimizer.lr": 1e-4,
        "optimizer.warmup_steps": 0,
        "evaluation.tasks": "[]",
        "alarms.divergence.action": "lower_lr",
        "alarms.divergence.max_drift": 1e-12,  # no two ways to compute a logprob agree so well
        "alarms.divergence.window": 100,
        "alarms.entropy_collapse.action": "stop",
        "alarms.entropy_collapse.window": 2,
        "alarms.entropy_collapse.floor": 100,  # more than the logarithm of the vocabulary
    }
    overrides = [f"{key}={value}" for key, value in settings.items()]
    command = [
        Path(sys.executable).with_name("rlstack"),
        "train",
        ROOT / "configs/quickstart.yaml",
        *overrides,
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600)

    folder = tmp_path / "alarms"
    assert done.returncode == 1, done.stdout[-3000:] + done.stderr[-3000:]
    assert "error: StoppedByAlarm: entropy_collapse: policy/entropy is" in done.stderr
    assert str(folder / "model") in done.stderr
    assert (folder / "model" / "config.json").is_file()
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["status"], summary["steps"]) == ("stopped", 2)
    raised = [(row["step"], row["alarm"], row["action"]) for row in summary["alarms"]]
    assert raised == [(1, "divergence", "lower_lr"), (2, "entropy_collapse", "stop")]
    steps = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["lr"] for row in steps] == pytest.approx([1e-4, 0.5e-4])
