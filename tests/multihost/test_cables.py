"""Cables that are out for a while, or for good, in each phase of a run.

Host 1 has the driver and no other role, so that the cables of policy and engine lie between it and them.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.faults import tiny_run
from tests.faults.invariants import Left
from tests.multihost import moments
from tests.multihost.cluster import start_node
from tests.multihost.held_runs import END_S, log, resumed, run_held_at, wait_for, wrong_with
from tests.multihost.hosts import Hosts, address
from tests.multihost.moments import GENERATING, SAVING, STARTING, SYNCING, WATCHED

pytestmark = [pytest.mark.multihost, pytest.mark.thorough]

NUM_CPUS = (0, 1, 1)  # whoever loses one of two hosts finds no room on the other
PHASES = {"start": STARTING, "generate": GENERATING, "sync": SYNCING, "save": SAVING}


def test_one_that_is_out_for_5_s_in_each_phase_costs_time_only(tmp_path: Path, undisturbed: Left) -> None:
    listed = [*PHASES.values()]
    with run_held_at(listed, tmp_path, num_cpus=NUM_CPUS, limit_s=120.0) as (hosts, driver):
        for i, moment in enumerate(listed):
            host = wait_for(tmp_path, i, moment, driver)
            hosts.cable(host, plugged=False)
            moments.go_on(tmp_path, i)
            time.sleep(5.0)
            hosts.cable(host, plugged=True)
        assert driver.wait(END_S) == 0, log(tmp_path).read_text()
    assert wrong_with(tmp_path, undisturbed) == []
    assert not (tmp_path / tiny_run.NAME / "restarts.jsonl").exists()


@pytest.mark.parametrize("phase", PHASES)
def test_one_that_is_out_for_30_s_loses_no_step(phase: str, tmp_path: Path, undisturbed: Left) -> None:
    """Ray may ride the outage out, give up a role, or give up the node: the run then ends by its name."""
    with run_held_at([PHASES[phase]], tmp_path, num_cpus=NUM_CPUS, limit_s=120.0) as (hosts, driver):
        host = wait_for(tmp_path, 0, PHASES[phase], driver)
        hosts.cable(host, plugged=False)
        moments.go_on(tmp_path, 0)
        time.sleep(30.0)
        hosts.cable(host, plugged=True)
        if driver.wait(END_S) != 0:
            resume_on_node_named(hosts, host, tmp_path)
    assert wrong_with(tmp_path, undisturbed) == []


@pytest.mark.parametrize("phase", PHASES)
def test_one_that_stays_out_ends_the_run_by_name_and_it_resumes_equal(
    phase: str, tmp_path: Path, undisturbed: Left
) -> None:
    with run_held_at([PHASES[phase]], tmp_path, num_cpus=NUM_CPUS, limit_s=40.0) as (hosts, driver):
        host = wait_for(tmp_path, 0, PHASES[phase], driver)
        hosts.cable(host, plugged=False)
        moments.go_on(tmp_path, 0)
        assert driver.wait(END_S) == 1
        resume_on_node_named(hosts, host, tmp_path)
    assert wrong_with(tmp_path, undisturbed) == []


def resume_on_node_named(hosts: Hosts, host: int, shared: Path) -> None:
    """Check that the run's error names the node of `host`, start that anew, and resume the run there."""
    text = log(shared).read_text()
    assert f"node {address(host)} was lost" in text and "--resume" in text
    hosts.power_off(host)
    hosts.power_on(host)
    start_node(hosts, host, num_cpus=NUM_CPUS[host - 1], env=WATCHED)
    resumed(hosts, shared)
