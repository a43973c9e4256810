"""An engine that has loaded other weights than the policy ends the run before it samples with them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.model_folders import stale_folder

QUICKSTART = Path(__file__).resolve().parents[2] / "configs" / "quickstart.yaml"
SHORT = ["schedule.num_steps=2", "batch.prompts_per_step=4", "evaluation.num_prompts=4", "evaluation.n=2"]
# The engines of the run take their model from elsewhere, as on a node that has an older copy.
DRIVER = """
import sys
from dataclasses import replace
from rlstack.cli import main
from rlstack.orchestration import cluster

stale = sys.argv.pop(1)
EngineGroup = cluster.EngineGroup
cluster.EngineGroup = lambda config, **others: EngineGroup(
    replace(config, policy=replace(config.policy, model=stale)), **others
)
sys.exit(main())
"""

pytestmark = pytest.mark.slow


def test_other_weights_in_the_engine_end_the_run_before_the_first_rollout(tmp_path: Path) -> None:
    stale = stale_folder(tmp_path / "stale")
    place = [f"run.dir={tmp_path}", "run.name=run"]
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, stale, "train", QUICKSTART, *SHORT, *place],
        capture_output=True,
        text=True,
        timeout=400,
    )
    folder = tmp_path / "run"
    assert done.returncode == 1, done.stdout[-3000:] + done.stderr[-3000:]
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["status"] == "failed" and summary["steps"] == 0
    assert "engine 0 has loaded other weights than the policy from" in summary["error"]["message"]
    for name in ("rollouts.jsonl", "metrics.jsonl"):
        assert not (folder / name).exists() or (folder / name).read_text() == ""
