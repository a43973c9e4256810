"""Nodes that are lost at once: a host that is switched off, and Ray that is killed on one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.faults import tiny_run
from tests.faults.invariants import Left
from tests.multihost import moments
from tests.multihost.cluster import start_node
from tests.multihost.held_runs import END_S, log, resumed, run_held_at, wait_for, wrong_with
from tests.multihost.hosts import Hosts, address
from tests.multihost.moments import GENERATING, WATCHED
from tests.run_files import nodes_of

pytestmark = [pytest.mark.multihost, pytest.mark.thorough]


def kill_raylet(hosts: Hosts, host: int) -> None:
    (raylet,) = [each for each in hosts.space(host).processes() if each.name() == "raylet"]
    raylet.kill()


def test_the_engine_of_a_host_that_was_switched_off_is_started_on_a_free_one(
    tmp_path: Path, undisturbed: Left
) -> None:
    num_cpus = (0, 2, 2, 2)
    with run_held_at([GENERATING], tmp_path, num_cpus=num_cpus, limit_s=60.0) as (hosts, driver):
        host = wait_for(tmp_path, 0, GENERATING, driver)
        hosts.power_off(host)
        assert driver.wait(END_S) == 0, log(tmp_path).read_text()
    run = tmp_path / tiny_run.NAME
    (row,) = [json.loads(line) for line in (run / "restarts.jsonl").read_text().splitlines()]
    assert (row["node"], row["failed"]) == (address(host), False)
    assert nodes_of(run, "engine-0") == [address(host), row["moved_to"]]
    assert f"engine 0 was replaced on {row['moved_to']}" in log(tmp_path).read_text()
    assert wrong_with(tmp_path, undisturbed) == []


def test_without_a_free_host_the_run_ends_by_name_and_resumes_where_ray_is_started_again(
    tmp_path: Path, undisturbed: Left
) -> None:
    num_cpus = (0, 1, 1)  # of which the policy's two ranks take half of one
    with run_held_at([GENERATING], tmp_path, num_cpus=num_cpus, limit_s=60.0) as (hosts, driver):
        host = wait_for(tmp_path, 0, GENERATING, driver)
        kill_raylet(hosts, host)
        moments.go_on(tmp_path, 0)
        assert driver.wait(END_S) == 1
        text = log(tmp_path).read_text()
        assert f"node {address(host)} was lost, with engine 0 on it" in text and "--resume" in text
        assert "was replaced" not in text
        hosts.on(host, "ray stop --force")
        start_node(hosts, host, num_cpus=1, env=WATCHED)
        resumed(hosts, tmp_path)
    assert wrong_with(tmp_path, undisturbed) == []
