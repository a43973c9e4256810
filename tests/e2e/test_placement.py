"""The same run wherever its roles are: engines that sleep on one machine, and two nodes of a Ray cluster."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rlstack.telemetry.metrics import is_timing
from tests.e2e.nodes import ENVIRONMENT, ray_nodes
from tests.e2e.timelines import check_timeline, seconds_side_by_side

QUICKSTART = Path(__file__).resolve().parents[2] / "configs" / "quickstart.yaml"
SHORT = ["schedule.num_steps=6", "batch.prompts_per_step=4", "evaluation.num_prompts=4", "evaluation.n=2"]
SHORT += ["schedule.sync_interval=2", "schedule.evaluate_every=4"]
COLOCATED = ["cluster.placement=colocated", "rollout.overlap=false"]
HEAD, OTHER = "127.0.0.2", "127.0.0.3"

pytestmark = pytest.mark.slow


def results(command: str, folder: Path, *overrides: str) -> tuple[list[dict[str, Any]], list[Any]]:
    """Every step's metrics but for times, and every rollout with its reward."""
    rlstack = Path(sys.executable).with_name("rlstack")
    done = subprocess.run(
        [
            rlstack,
            command,
            QUICKSTART,
            *SHORT,
            *overrides,
            f"run.dir={folder.parent}",
            f"run.name={folder.name}",
        ],
        env=os.environ | ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    steps, rollouts = (
        [json.loads(line) for line in (folder / f"{file}.jsonl").read_text().splitlines()]
        for file in ("metrics", "rollouts")
    )
    return [{key: value for key, value in row.items() if not is_timing(key)} for row in steps], rollouts


def node_of(folder: Path, role: str) -> str:
    """Where the process of `role` found itself."""
    first = (folder / "logs" / f"{role}.log").read_text().partition("\n")[0]
    return first.partition(" on node ")[2].partition(",")[0]


def test_two_nodes_and_engines_that_sleep_make_the_same_run(tmp_path: Path) -> None:
    alone, apart = tmp_path / "colocated", tmp_path / "two_nodes"
    expected = results("train", alone, *COLOCATED)
    assert seconds_side_by_side(check_timeline(alone, num_ranks=2)) == 0
    with ray_nodes([HEAD, OTHER], num_cpus=2) as address:
        found = results("launch", apart, f"--address={address}", "cluster.port_range=[21000, 21200]")
    roles = ("policy-0", "policy-1", "engine-0")
    assert [node_of(apart, role) for role in roles] == [HEAD, HEAD, OTHER]
    assert found == expected
    synced = [row["sync/version"] for row in found[0] if "sync/version" in row]
    assert synced == [2, 4, 6]
