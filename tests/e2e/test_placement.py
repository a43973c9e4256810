"""The same run wherever its roles are: engines that sleep on one machine, and two nodes of a Ray cluster."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.e2e.nodes import ENVIRONMENT, RAY, ray_nodes
from tests.e2e.timelines import check_timeline, seconds_side_by_side
from tests.run_files import Results, nodes_of, results_in

QUICKSTART = Path(__file__).resolve().parents[2] / "configs" / "quickstart.yaml"
SHORT = ["schedule.num_steps=6", "batch.prompts_per_step=4", "evaluation.num_prompts=4", "evaluation.n=2"]
SHORT += ["schedule.sync_interval=2", "schedule.evaluate_every=4", "run.deterministic=true"]
COLOCATED = ["cluster.placement=colocated", "rollout.overlap=false"]
ROLES = ("policy-0", "policy-1", "engine-0")
HEAD, OTHER = "127.0.0.2", "127.0.0.3"

pytestmark = pytest.mark.slow


def results(command: str, folder: Path, *overrides: str) -> Results:
    """Those of a run of `command`, which has to succeed; see results_in()."""
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
    assert ".cc:" not in done.stderr, "what C++ says belongs into the log"
    return results_in(folder)


def test_two_nodes_and_engines_that_sleep_make_the_same_run(tmp_path: Path) -> None:
    alone, apart = tmp_path / "colocated", tmp_path / "two_nodes"
    expected = results("train", alone, *COLOCATED)
    assert seconds_side_by_side(check_timeline(alone, num_ranks=2)) == 0
    with ray_nodes([HEAD, OTHER], num_cpus=2) as address:
        found = results("launch", apart, f"--address={address}", "cluster.port_range=[21000, 21200]")
    assert [nodes_of(apart, role) for role in ROLES] == [[HEAD], [HEAD], [OTHER]]
    assert found == expected
    # Which Ray writes whenever a cluster is tried without its token: of C++, and to descriptor 2.
    assert "InvalidAuthToken" in (apart / "logs" / "driver.log").read_text()
    synced = [row["sync/version"] for row in found[0] if "sync/version" in row]
    assert synced == [2, 4, 6]


def processes_of(folder: Path, role: str) -> list[psutil.Process]:
    """Those whose output goes to the role's log, on whichever node."""
    log, found = folder / "logs" / f"{role}.log", []
    for process in psutil.process_iter():
        with suppress(OSError, psutil.Error):
            if Path(f"/proc/{process.pid}/fd/1").resolve() == log:
                found.append(process)
    return found


def is_written(file: Path) -> bool:
    return file.exists() and file.stat().st_size > 0


def wait_until(condition: Callable[[], object], process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert process.poll() is None and time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.2)


@pytest.mark.thorough
def test_a_lost_engine_comes_back_to_its_node_and_sigterm_ends_the_run_but_not_the_cluster(
    tmp_path: Path,
) -> None:
    folder, rlstack = tmp_path / "run", Path(sys.executable).with_name("rlstack")
    place = [f"run.dir={tmp_path}", "run.name=run", "schedule.num_steps=2000"]
    with ray_nodes([HEAD, OTHER], num_cpus=2) as address:
        command = [rlstack, "launch", QUICKSTART, *SHORT, *place, f"--address={address}"]
        run = subprocess.Popen(command, env=os.environ | ENVIRONMENT, stdout=subprocess.DEVNULL)
        try:
            wait_until(lambda: is_written(folder / "metrics.jsonl"), run)
            (engine,) = processes_of(folder, "engine-0")
            engine.kill()
            wait_until(lambda: is_written(folder / "restarts.jsonl"), run)
            assert nodes_of(folder, "engine-0") == [OTHER, OTHER]
            roles = [each for role in ROLES for each in processes_of(folder, role)]
            assert len(roles) == 3
            run.terminate()
            assert run.wait(60) == 130
        finally:
            run.kill()
        assert json.loads((folder / "summary.json").read_text())["status"] == "interrupted"
        _, alive = psutil.wait_procs(roles, timeout=10)
        assert alive == []
        subprocess.run([RAY, "status", f"--address={address}"], env=os.environ | ENVIRONMENT, check=True)
