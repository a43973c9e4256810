"""Side by side or in turns: the same run, whatever the lag, through the real engines."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.timelines import check_timeline, seconds_side_by_side
from tests.run_files import results_in

QUICKSTART = Path(__file__).resolve().parents[2] / "configs" / "quickstart.yaml"
SHORT = ["schedule.num_steps=6", "batch.prompts_per_step=4", "evaluation.num_prompts=4", "evaluation.n=2"]
SHORT += ["rollout.max_num_seqs=32"]  # one step's: with room for an interval's, all steps would end together

pytestmark = pytest.mark.slow


def results(folder, name, *overrides):
    """Those of a run that has to succeed; see results_in()."""
    command = [Path(sys.executable).with_name("rlstack"), "train", QUICKSTART, *SHORT, *overrides]
    done = subprocess.run(
        [*command, f"run.dir={folder}", f"run.name={name}"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return results_in(folder / name)


# test_placement holds a run without overlap, too, against one with it.
@pytest.mark.thorough
@pytest.mark.parametrize(
    ("regime", "versions", "arrivals"),
    [
        (["schedule.sync_interval=3", "schedule.evaluate_every=3"], [0, 0, 0, 3, 3, 3], {3: 3, 6: 6}),
        (
            ["schedule.sync_interval=1", "schedule.lag=1"],
            [0, 0, 1, 2, 3, 4],
            {1: 2, 2: 3, 3: 4, 4: 5, 5: 6},
        ),
    ],
    ids=["s3", "s1-lag1"],
)
def test_overlap_changes_nothing_but_times(tmp_path, regime, versions, arrivals):
    """A version arrives with the last step that can do without it; one after the end is nobody's."""
    steps, rollouts = results(tmp_path, "overlapped", *regime)
    assert [row["step"] - 1 - row["version_age"] for row in steps] == versions
    assert [row["version"] for row in rollouts[:: 4 * 8]] == versions
    synced = [row for row in steps if "sync/version" in row]
    assert {row["sync/version"]: row["step"] for row in synced} == arrivals
    assert all(row["sync/verified"] for row in synced)
    assert (steps, rollouts) == results(tmp_path, "in_turns", *regime, "rollout.overlap=false")
    overlapped, in_turns = (
        seconds_side_by_side(check_timeline(tmp_path / name, num_ranks=2))
        for name in ("overlapped", "in_turns")
    )
    assert overlapped > 0 == in_turns
