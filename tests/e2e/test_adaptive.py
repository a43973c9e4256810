"""schedule.sync_interval=auto with real engines: s changes, says why, and is repeated from its log."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rlstack.telemetry.metrics import is_timing

ROOT = Path(__file__).resolve().parents[2]
NUM_STEPS = 9

pytestmark = pytest.mark.slow


def run(folder: Path, *overrides: str) -> str:
    """Train in `folder`; what was printed."""
    command = [Path(sys.executable).with_name("rlstack"), "train", ROOT / "configs" / "quickstart.yaml"]
    settings = [f"schedule.num_steps={NUM_STEPS}", "schedule.sync_interval=auto", "schedule.adaptive.start=4"]
    small = ["batch.prompts_per_step=8", "evaluation.tasks=[]", "optimizer.warmup_steps=0"]
    place = [f"run.dir={folder.parent}", f"run.name={folder.name}"]
    done = subprocess.run(
        [*command, *settings, *small, *place, *overrides], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def untimed(row: dict[str, Any]) -> dict[str, Any]:
    """What of a step's metrics is the same in two runs."""
    return {name: value for name, value in row.items() if not is_timing(name)}


@pytest.mark.thorough
def test_s_shrinks_with_a_budget_that_every_step_exceeds_and_a_replay_repeats_it(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    printed = run(first, "schedule.adaptive.max_drift=1e-5")
    decisions, steps = rows(first / "intervals.jsonl"), rows(first / "metrics.jsonl")
    assert [(d["version"], d["before"], d["interval"]) for d in decisions] == [
        (0, None, 4),
        (4, 4, 2),
        (6, 2, 1),
        (7, 1, 1),
        (8, 1, 1),
        (9, 1, 1),
    ]
    assert decisions[0]["reason"] == "start"
    assert decisions[1]["reason"].startswith("drift of ") and decisions[1]["reason"].endswith("above 1e-05")
    assert f"s 4 -> 2 from version 4 on: {decisions[1]['reason']}" in printed
    assert json.loads((first / "summary.json").read_text())["intervals"] == decisions

    versions = [0, 0, 0, 0, 4, 4, 6, 7, 8]
    assert [row["step"] - 1 - row["version_age"] for row in steps] == versions
    assert [row["schedule/sync_interval"] for row in steps] == [4, 4, 4, 4, 2, 2, 1, 1, 1]
    assert [row["step"] for row in steps if "sync/verified" in row] == [4, 6, 7, 8, 9]
    assert all(row["drift/logprob_abs_mean"] > 1e-5 for row in steps if row["version_age"] > 0)
    assert all("mismatch/logprob_abs_mean" in row for row in steps)  # the reference holds each version
    assert {(row["step"] - 1, row["version"]) for row in rows(first / "rollouts.jsonl")} == set(
        enumerate(versions)
    )

    # By its own lights this one would double s at every sync.
    run(second, "schedule.adaptive.max_drift=10", f"schedule.adaptive.replay={first / 'intervals.jsonl'}")
    assert list(map(untimed, rows(second / "metrics.jsonl"))) == list(map(untimed, steps))
    replayed = rows(second / "intervals.jsonl")
    assert {decision["reason"] for decision in replayed} == {"replayed"}
    assert [d["until"] for d in replayed] == [d["until"] for d in decisions]


@pytest.mark.thorough
def test_s_grows_with_a_budget_that_nothing_exceeds_also_with_a_lag_and_up_to_an_evaluation(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "run"
    regime = ["schedule.lag=1", "schedule.evaluate_every=8", "schedule.adaptive.start=2"]
    run(folder, "schedule.adaptive.max_drift=10", *regime)
    decisions, steps = rows(folder / "intervals.jsonl"), rows(folder / "metrics.jsonl")
    # s doubles at each sync; 6 is as far as the evaluation at version 8.
    assert [(d["version"], d["interval"], d["until"]) for d in decisions] == [
        (0, 2, 2),
        (2, 4, 5),
        (5, 8, 8),
        (8, 16, 16),
    ]
    versions = [row["step"] - 1 - row["version_age"] for row in steps]
    assert versions == [0, 0, 0, 2, 2, 2, 5, 5, 5]
