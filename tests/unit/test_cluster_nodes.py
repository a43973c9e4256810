"""Checks of a cluster's nodes before roles go there, and who is looked at when the policy is replaced."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from rlstack.config.schema import Cluster as Settings
from rlstack.config.schema import RunConfig
from rlstack.errors import ConfigError
from rlstack.orchestration import cluster
from rlstack.orchestration.cluster import Cluster
from rlstack.orchestration.home import Home
from rlstack.orchestration.placement import Bundle, Decision, Demand, Node
from rlstack.orchestration.roles import NodeLost, OlderVersionLost, PolicyLost, Role

A, B, C = (Node(id=f"n{i}", address=f"10.0.0.{i}", num_gpus=0, num_cores=2) for i in (1, 2, 3))


def on(*nodes: Node) -> Decision:
    bundles = tuple(Bundle(node, 0, 1) for node in nodes)
    return Decision(bundles=bundles, policy=(), engines=(), reward_models={}, use_gpus=False)


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[list[Node]]:
    """The nodes of each check that was made."""
    found: list[list[Node]] = []

    def check(config: RunConfig, demand: Demand, decision: Decision, **other: Any) -> None:
        found.append([bundle.node for bundle in decision.bundles])

    monkeypatch.setattr(cluster, "all_nodes", lambda: [A, B, C])
    monkeypatch.setattr(cluster, "check_cluster", check)
    return found


def made(tmp_path: Path, address: str | None = "10.0.0.1:6379") -> Cluster:
    return Cluster(RunConfig(cluster=Settings(address=address)), tmp_path)


def test_the_nodes_are_checked_when_one_of_them_is_new(checked: list[list[Node]], tmp_path: Path) -> None:
    running, reserved = made(tmp_path), A._replace(num_cores=1)
    for decision in (on(reserved, B), on(B), on(reserved, C), on(C, reserved)):
        running._check(decision)
    assert checked == [[A, B], [A, C]]  # each with all that it has, by which nodes are told apart


def test_nodes_that_were_refused_are_checked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*given: Any, **other: Any) -> None:
        raise ConfigError("no")

    monkeypatch.setattr(cluster, "all_nodes", lambda: [A, B])
    monkeypatch.setattr(cluster, "check_cluster", refuse)
    running = made(tmp_path)
    for _ in range(2):
        with pytest.raises(ConfigError):
            running._check(on(A, B))


def test_a_run_with_its_own_ray_checks_nothing(checked: list[list[Node]], tmp_path: Path) -> None:
    made(tmp_path, address=None)._check(on(A, B))
    assert checked == []


@pytest.mark.parametrize("is_engine", [False, True])
def test_the_nodes_of_all_ranks_are_looked_at_before_the_policy_is_ended(
    tmp_path: Path, is_engine: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def role(name: str) -> Role:
        return cast(Role, SimpleNamespace(name=name, title=name, log="x", home=Home()))

    ranks, engine, settled = [role("policy rank 0"), role("policy rank 1")], role("engine 0"), list[Any]()
    running = made(tmp_path)

    def settle(roles: Sequence[Role]) -> list[str]:
        settled.extend(roles)
        raise NodeLost("node 10.0.0.2 was lost")

    running.restarts._settle = settle
    monkeypatch.setattr(cluster, "kill_roles", lambda roles: pytest.fail("they were ended"))
    running._policy = cast(Any, SimpleNamespace(roles=ranks))
    seats = {id(engine): SimpleNamespace(role=engine)}
    running._engines = cast(Any, SimpleNamespace(seat_of=lambda role: seats.get(id(role))))
    lost = OlderVersionLost("engine 0 died", role=engine) if is_engine else PolicyLost("died", role=ranks[1])
    with pytest.raises(NodeLost):
        running.restart_policy(lost)
    assert settled == ([*ranks, engine] if is_engine else ranks)


@pytest.mark.parametrize(
    ("colocated", "order"),
    [
        (False, ["start engine", "start policy", "load engine"]),
        (True, ["start engine", "load engine", "start policy"]),  # it takes what memory the policy leaves
    ],
)
def test_all_that_was_lost_ends_together_and_starts_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, colocated: bool, order: list[str]
) -> None:
    done = list[Any]()
    running = made(tmp_path, address=None)
    running._demand = replace(running._demand, colocated=colocated)
    running.restarts._settle = lambda roles: []
    ranks, engine = ["rank 0", "rank 1"], SimpleNamespace(name="engine 0", title="", log="x", home=Home())
    seat = SimpleNamespace(role=engine, replace=lambda: done.append("start engine"))
    running._policy = cast(Any, SimpleNamespace(roles=ranks))
    running._engines = cast(
        Any,
        SimpleNamespace(
            seat_of=lambda role: seat,
            abandon=lambda: done.append("abandon"),
            load=lambda role: done.append("load engine"),
        ),
    )
    monkeypatch.setattr(cluster, "kill_roles", lambda roles: done.append(["kill", *roles]))
    monkeypatch.setattr(running, "start_policy", lambda: done.append("start policy"))
    running.restart_policy(OlderVersionLost("engine 0 died", role=cast(Any, engine)))
    assert done == [["kill", "rank 0", "rank 1", engine], "abandon", *order]
