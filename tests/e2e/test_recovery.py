"""Real processes that are killed or stopped, in runs that end as if nothing had happened to them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from rlstack.telemetry.metrics import is_timing

QUICKSTART = Path(__file__).resolve().parents[2] / "configs" / "quickstart.yaml"
# The reference stays, so that the engines' version is nobody else's inside an interval.
SETTINGS = [
    "schedule.num_steps=8",
    "schedule.sync_interval=3",
    "schedule.reference_sync=never",
    "schedule.save_every=4",
    "batch.prompts_per_step=8",
    "evaluation.num_prompts=4",
    "evaluation.n=2",
    "rollout.engines=2",
    "rollout.generate_timeout_s=10",
    "policy.step_timeout_s=60",
    "transfer.timeout_s=20",
]
LIMIT_S = 240.0

Strike = tuple[int, str, signal.Signals]  # once this step is logged, to whom, which signal

pytestmark = pytest.mark.slow


def command(folder: Path, *overrides: str) -> list[str | Path]:
    rlstack = Path(sys.executable).with_name("rlstack")
    return [
        rlstack,
        "train",
        QUICKSTART,
        *SETTINGS,
        f"run.dir={folder.parent}",
        f"run.name={folder.name}",
        *overrides,
    ]


def rows(path: Path) -> list[dict[str, Any]]:
    return [
        {name: value for name, value in json.loads(line).items() if not is_timing(name)}
        for line in path.read_text().splitlines()
    ]


def last_step(folder: Path) -> int:
    path = folder / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return json.loads(lines[-1])["step"] if lines else 0


def log_of(process: psutil.Process) -> str | None:
    """The name of the file that the process writes its output to."""
    try:
        return Path(f"/proc/{process.pid}/fd/1").resolve().name
    except OSError:
        return None


def strike(driver: subprocess.Popen[str], folder: Path, step: int, log: str, how: signal.Signals) -> None:
    deadline = time.monotonic() + LIMIT_S
    while driver.poll() is None and last_step(folder) < step and time.monotonic() < deadline:
        time.sleep(0.01)
    below = psutil.Process(driver.pid).children(recursive=True)
    (victim,) = [child for child in below if log_of(child) == log]
    victim.send_signal(how)


def run(folder: Path, strikes: list[Strike], *overrides: str) -> tuple[int, str]:
    """Train in `folder` under `strikes`; the exit status, and the error output. Nothing is left running."""
    driver = subprocess.Popen(
        command(folder, *overrides),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        for step, log, how in strikes:
            strike(driver, folder, step, log, how)
        below = psutil.Process(driver.pid).children(recursive=True)
        _, errors = driver.communicate(timeout=LIMIT_S)
    finally:
        if driver.poll() is None:
            os.killpg(driver.pid, signal.SIGKILL)
    assert not [p for p in below if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
    return driver.returncode, errors


def left(folder: Path) -> dict[str, Any]:
    """All that a run has done, but for times."""
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["status"] == "completed"
    return {
        "metrics": rows(folder / "metrics.jsonl"),
        "rollouts": rows(folder / "rollouts.jsonl"),
        "evaluations": summary["evaluations"],
        "weights": {path.name: path.read_bytes() for path in (folder / "model").glob("*.safetensors")},
    }


def restarts(folder: Path) -> list[tuple[str, str]]:
    path = folder / "restarts.jsonl"
    found = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    assert all(row["seconds"] > 0 for row in found)
    return [(row["role"], row["reason"].rpartition(": ")[2]) for row in found]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recovery") / "undisturbed"
    status, errors = run(folder, [])
    assert status == 0, errors
    assert restarts(folder) == []
    return folder


def test_engines_that_die_or_stand_still_change_nothing_of_a_run(undisturbed: Path) -> None:
    """Inside intervals, where the policy has gone on from the version that the engines hold."""
    folder = undisturbed.with_name("engines")
    strikes = [(3, "engine-0.log", signal.SIGKILL), (6, "engine-1.log", signal.SIGSTOP)]
    status, errors = run(folder, strikes)
    assert status == 0, errors
    assert left(folder) == left(undisturbed)
    (first, why), (second, late) = restarts(folder)
    assert (first, why, second) == ("engine 0", "engine 0 died", "engine 1")
    assert "no answer from engine 1 within" in late


@pytest.mark.thorough
def test_a_policy_that_dies_goes_back_to_the_newest_checkpoint_and_the_engines_stay(
    undisturbed: Path,
) -> None:
    folder = undisturbed.with_name("policy")
    status, errors = run(folder, [(6, "policy-0.log", signal.SIGKILL)])
    assert status == 0, errors
    assert left(folder) == left(undisturbed)
    assert [role for role, _ in restarts(folder)] == ["policy rank 0"]


@pytest.mark.thorough
def test_one_loss_too_many_ends_the_run_with_one_clear_error(tmp_path: Path) -> None:
    folder = tmp_path / "spent"
    limits = ["recovery.max_restarts=0", "rollout.engines=1"]
    status, errors = run(folder, [(3, "engine-0.log", signal.SIGKILL)], *limits)
    assert status == 1
    assert "engine 0 died" in errors and "recovery.max_restarts" in errors and "engine-0.log" in errors
    assert json.loads((folder / "summary.json").read_text())["status"] == "failed"
