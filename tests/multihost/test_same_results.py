"""A run that is split over hosts gives what it gives on one machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.multihost.cluster import launch, start_ray
from tests.multihost.hosts import Hosts, address
from tests.run_files import Results, nodes_of, results_in

pytestmark = [pytest.mark.multihost, pytest.mark.slow]


def run_over(count: int, folder: Path, *settings: str, num_cpus: list[int]) -> None:
    """The short quickstart over `count` hosts, as `folder`/run."""
    with Hosts(count, shared=folder) as hosts:
        start_ray(hosts, num_cpus=num_cpus)
        driver = launch(hosts, *settings, log=folder / "driver.log")
        assert driver.wait(400) == 0, (folder / "driver.log").read_text()


def test_two_hosts(tmp_path: Path, alone: Results) -> None:
    run_over(2, tmp_path, num_cpus=[2, 2])
    nodes = [nodes_of(tmp_path / "run", role) for role in ("policy-0", "policy-1", "engine-0")]
    assert nodes == [[address(1)], [address(1)], [address(2)]]
    assert results_in(tmp_path / "run") == alone
    assert [row["sync/version"] for row in alone[0] if "sync/version" in row] == [2, 4, 6]


@pytest.mark.thorough
def test_three_hosts_and_a_tensor_parallel_engine(tmp_path: Path, alone: Results) -> None:
    run_over(3, tmp_path, "rollout.tensor_parallel=2", num_cpus=[0, 2, 2])
    nodes = {role: nodes_of(tmp_path / "run", role) for role in ("policy-0", "policy-1", "engine-0")}
    assert nodes["policy-0"] == nodes["policy-1"] != nodes["engine-0"]
    assert address(1) not in nodes["engine-0"] + nodes["policy-0"]
    steps, rollouts = results_in(tmp_path / "run")
    assert rollouts == alone[1]
    for step, expected in zip(steps, alone[0], strict=True):
        # Two ranks add up in another order, and each holds the norms' weights.
        assert step.pop("sync/bytes", 0) >= expected.get("sync/bytes", 0)
        same = {key: value for key, value in expected.items() if key != "sync/bytes"}
        assert step == pytest.approx(same, abs=1e-5)
