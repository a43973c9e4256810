"""Side by side or in turns: the same run, whatever the lag, through the real engines."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from rlstack.telemetry.metrics import is_timing

QUICKSTART = Path(__file__).resolve().parents[2] / "configs" / "quickstart.yaml"
SHORT = ["schedule.num_steps=6", "batch.prompts_per_step=4", "evaluation.num_prompts=4", "evaluation.n=2"]

pytestmark = pytest.mark.slow


def results(folder, name, *overrides):
    """Every step's metrics but for times, and every rollout with its reward."""
    command = [Path(sys.executable).with_name("rlstack"), "train", QUICKSTART, *SHORT, *overrides]
    done = subprocess.run(
        [*command, f"run.dir={folder}", f"run.name={name}"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    steps, rollouts = (
        [json.loads(line) for line in (folder / name / f"{file}.jsonl").read_text().splitlines()]
        for file in ("metrics", "rollouts")
    )
    return [{key: value for key, value in row.items() if not is_timing(key)} for row in steps], rollouts


@pytest.mark.parametrize(
    ("regime", "versions"),
    [
        (["schedule.sync_interval=3", "schedule.evaluate_every=3"], [0, 0, 0, 3, 3, 3]),
        (["schedule.sync_interval=1", "schedule.lag=1"], [0, 0, 1, 2, 3, 4]),
        (["schedule.sync_interval=2", "schedule.lag=2"], [0, 0, 0, 0, 2, 2]),
    ],
    ids=["s3", "s1-lag1", "s2-lag2"],
)
def test_overlap_changes_nothing_but_times(tmp_path, regime, versions):
    steps, rollouts = results(tmp_path, "overlapped", *regime)
    assert [row["step"] - 1 - row["version_age"] for row in steps] == versions
    assert [row["version"] for row in rollouts[:: 4 * 8]] == versions
    assert (steps, rollouts) == results(tmp_path, "again", *regime)
    assert (steps, rollouts) == results(tmp_path, "in_turns", *regime, "rollout.overlap=false")


def test_a_version_arrives_while_the_older_ones_rollouts_are_trained_on(tmp_path):
    """Its metrics come with the last step that can do without it."""
    steps, _ = results(tmp_path, "lag", "schedule.sync_interval=2", "schedule.lag=1")
    assert {row["sync/version"]: row["step"] for row in steps if "sync/version" in row} == {2: 3, 4: 5}
    assert all(row["sync/verified"] for row in steps if "sync/version" in row)
