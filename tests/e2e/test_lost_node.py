"""A node that is lost with an engine or a rank: another one takes over, or the run ends and says why."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.nodes import ENVIRONMENT, SOON_LOST, kill_node, ray_nodes
from tests.e2e.test_placement import QUICKSTART, SHORT, results, wait_until
from tests.run_files import nodes_of, results_in

HEAD, OTHER, THIRD, FREE = "127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5"
LONGER = ["schedule.num_steps=24", "schedule.save_every=2", "cluster.ranks_per_core=1"]

pytestmark = [pytest.mark.slow, pytest.mark.thorough]


def rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def with_a_loss(folder: Path, address: str) -> tuple[int, str]:
    """A run of which the node OTHER is lost after its third step; its exit status, and all that it says."""
    rlstack, out = Path(sys.executable).with_name("rlstack"), folder.with_suffix(".txt")
    place = [f"run.dir={folder.parent}", f"run.name={folder.name}", f"--address={address}"]
    with out.open("wb") as file:
        run = subprocess.Popen(
            [rlstack, "launch", QUICKSTART, *SHORT, *LONGER, *place],
            env=os.environ | ENVIRONMENT,
            stdout=file,
            stderr=file,
        )
    try:
        wait_until(lambda: len(rows(folder / "metrics.jsonl")) >= 3, run)
        kill_node(OTHER)
        return run.wait(300), out.read_text()
    finally:
        run.kill()


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[dict[str, Any]], list[Any]]:
    """The files of the same run on one machine, undisturbed."""
    return results("train", tmp_path_factory.mktemp("runs") / "alone", *LONGER, "cluster.ranks_per_core=4")


def test_a_free_node_takes_over_an_engine_and_the_results_stay(tmp_path: Path, expected: Any) -> None:
    moved = tmp_path / "moved"
    with ray_nodes([HEAD, OTHER, FREE], num_cpus=2, extra={HEAD: SOON_LOST}) as address:
        status, text = with_a_loss(moved, address)
    assert status == 0, text[-3000:]
    assert nodes_of(moved, "engine-0") == [OTHER, FREE]
    assert results_in(moved) == expected
    (restart,) = rows(moved / "restarts.jsonl")
    assert (restart["role"], restart["node"], restart["moved_to"]) == ("engine 0", OTHER, FREE)
    assert not restart["failed"]
    assert f"engine 0 (node {OTHER}) was lost: " in text
    assert f"; starting another one on {FREE}\n" in text
    assert f"engine 0 was replaced on {FREE} in " in text


def test_a_free_node_takes_over_a_rank_and_the_others_stay(tmp_path: Path, expected: Any) -> None:
    moved = tmp_path / "moved"
    with ray_nodes([HEAD, OTHER, THIRD, FREE], num_cpus=1, extra={HEAD: SOON_LOST}) as address:
        status, text = with_a_loss(moved, address)
    assert status == 0, text[-3000:]
    homes = [nodes_of(moved, role) for role in ("policy-0", "policy-1", "engine-0")]
    assert homes == [[HEAD, HEAD], [OTHER, FREE], [THIRD]]
    assert results_in(moved) == expected
    (restart,) = rows(moved / "restarts.jsonl")
    assert restart["moved_to"] == FREE and not restart["failed"]
    assert f"; starting another one on {FREE}\n" in text


def test_without_a_free_node_the_run_ends_and_names_the_lost_one(tmp_path: Path) -> None:
    folder = tmp_path / "ended"
    with ray_nodes([HEAD, OTHER], num_cpus=2, extra={HEAD: SOON_LOST}) as address:
        status, text = with_a_loss(folder, address)
    assert status == 1, text[-3000:]
    error = f"node {OTHER} was lost, with engine 0 on it, and no other node has room for that"
    assert error in text and f"start Ray on {OTHER} again, and launch the run again with --resume" in text
    assert "; to go on: rlstack train" in text
    (restart,) = rows(folder / "restarts.jsonl")
    assert restart["failed"] and restart["error"].startswith(error)
