"""Reserved GPUs, by a Ray that believes in eight: each role sees its own, and nothing is kept at the end."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray

from rlstack.collectives import SECRET
from rlstack.config.schema import Cluster, Placement, Policy, Rollout, RunConfig
from rlstack.errors import ConfigError
from rlstack.orchestration.home import Home
from rlstack.orchestration.loopback import LOOPBACK, stay_on_loopback
from rlstack.orchestration.nodes import all_nodes, free_nodes
from rlstack.orchestration.placement import Demand
from rlstack.orchestration.reservation import Reservation, reserve
from rlstack.orchestration.roles import Role, wait_for

SETTINGS = Cluster(env={"NCCL_DEBUG": "WARN"}, placement_timeout_s=120.0)
NAMES = ("CUDA_VISIBLE_DEVICES", "NCCL_DEBUG", "NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME", SECRET)

pytestmark = pytest.mark.slow


class Witness:
    def environment(self) -> dict[str, str | None]:
        return {name: os.environ.get(name) for name in NAMES}


def build_witness() -> Witness:
    return Witness()


@pytest.fixture(scope="module", autouse=True)
def eight_gpus() -> Iterator[None]:
    stay_on_loopback()
    ray.init(
        num_cpus=4, num_gpus=8, object_store_memory=100 << 20, include_dashboard=False, log_to_driver=False
    )
    yield
    ray.shutdown()


def config(*, tp: int = 1, dp: int = 1, engines: int = 1, engine_tp: int = 1) -> RunConfig:
    return RunConfig(
        policy=Policy(tensor_parallel=tp, data_parallel=dp),
        rollout=Rollout(engines=engines, tensor_parallel=engine_tp),
        cluster=SETTINGS,
    )


def ask(homes: list[Home], logs: Path) -> list[dict[str, Any]]:
    roles = [
        Role(f"witness {i}", log=logs / f"{i}.log", build=build_witness, home=home)
        for i, home in enumerate(homes)
    ]
    calls = [role.start(Witness.environment) for role in roles]
    found = wait_for(calls, timeout_s=120.0, doing="asking", setting="none")
    for role in roles:
        role.kill()
    return found


def homes_of(reservation: Reservation) -> list[Home]:
    decision = reservation.decision
    return [reservation.home(slot) for slot in (*decision.policy, *decision.engines)]


def test_each_role_sees_its_own_gpus_and_the_settings_of_the_network(tmp_path: Path) -> None:
    reservation = reserve(Demand.of(config(tp=2, dp=2, engines=2, engine_tp=2)), SETTINGS)
    found = ask(homes_of(reservation), tmp_path)
    assert [each["CUDA_VISIBLE_DEVICES"] for each in found] == [*"0123", "4,5", "6,7"]
    assert all(each["NCCL_DEBUG"] == "WARN" for each in found)
    assert all(each["GLOO_SOCKET_IFNAME"] == "lo" and each["NCCL_SOCKET_IFNAME"] == "=lo" for each in found)
    assert len({each[SECRET] for each in found}) == 1 and len(found[0][SECRET]) == 64
    assert f"witness 0 on node {LOOPBACK}, GPUs 0" in (tmp_path / "0.log").read_text()
    assert free_nodes(all_nodes())[0].num_gpus == 0
    reservation.close()


def test_engines_share_the_policys_gpus(tmp_path: Path) -> None:
    shared = config(tp=2, dp=2, engines=2, engine_tp=2)
    demand = replace(Demand.of(shared), colocated=True)
    reservation = reserve(demand, SETTINGS)
    assert [each["CUDA_VISIBLE_DEVICES"] for each in ask(homes_of(reservation), tmp_path)] == [
        *"0123",
        "0,1",
        "2,3",
    ]
    reservation.close()


def test_what_others_hold_is_waited_for_and_what_is_not_there_is_not() -> None:
    held = reserve(Demand.of(config(dp=6)), SETTINGS)
    impatient = replace(SETTINGS, placement_timeout_s=2.5)
    with pytest.raises(RuntimeError, match=r"waited 2.5 s .* for what others hold: 1 of 8 GPUs"):
        reserve(Demand.of(config(dp=2)), impatient)
    with pytest.raises(ConfigError, match=r"room for 9 GPUs is needed, and there is room for 8"):
        reserve(Demand.of(config(dp=8)), SETTINGS)
    held.close()
    reserve(Demand.of(config(dp=2)), SETTINGS).close()


def test_placement_is_of_policy_and_engines_together() -> None:
    alone = RunConfig(cluster=replace(SETTINGS, placement=Placement.colocated))
    assert Demand.of(alone).colocated and not Demand.of(alone, policy=False).colocated
