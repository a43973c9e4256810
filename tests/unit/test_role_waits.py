"""Waits for roles: of results, and of roles whose node was lost before they could start there."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from ray.exceptions import GetTimeoutError

from rlstack.orchestration import processes, roles
from rlstack.orchestration.home import Home
from rlstack.orchestration.processes import Processes
from rlstack.orchestration.role_host import Answer
from rlstack.orchestration.roles import (
    WATCH_S,
    Call,
    EngineLost,
    Role,
    Stream,
    kill_roles,
    silent_or_dead,
    wait_for,
    yielded,
)
from rlstack.telemetry.clocks import Reading, RoleClock


def role(name: str, node: str) -> Role[Any]:
    """One whose process is never started."""
    made: Role[Any] = Role.__new__(Role)
    made.name, made.log, made.lost, made.clock = name, Path("x.log"), EngineLost, RoleClock(name)
    made.home = Home(node=node, address=f"10.0.0.{node[1:]}") if node else Home()
    return made


@pytest.fixture
def given_up(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """The seconds at which Ray gives nodes up; no call ever has a result."""
    found, now = dict[str, float](), [0.0]

    def wait(refs: list[Any], *, timeout: float, **other: Any) -> tuple[list[Any], list[Any]]:
        now[0] += timeout
        return [], refs

    def lost_nodes(ids: Collection[str]) -> set[str]:
        assert "" not in ids
        return {node for node in ids if found.get(node, float("inf")) <= now[0]}

    monkeypatch.setattr(roles, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(roles.ray, "wait", wait)
    monkeypatch.setattr(roles, "lost_nodes", lost_nodes)
    return found


def waited(*those: Role[Any], timeout_s: float = 600.0) -> EngineLost:
    calls = [Call[Any](each, cast(Any, each.name)) for each in those]
    with pytest.raises(EngineLost) as lost:
        wait_for(calls, timeout_s=timeout_s, doing="loading the engine again", setting="the.limit")
    return lost.value


def test_a_role_whose_node_is_given_up_is_lost_then_not_at_the_limit(given_up: dict[str, float]) -> None:
    given_up["n3"] = 17.0
    there, gone = role("engine 0", "n2"), role("engine 1", "n3")
    lost = waited(there, gone)
    assert lost.role is gone and not lost.is_late
    assert lost.reason == "loading the engine again: the node of engine 1 (node 10.0.0.3) was lost"
    assert roles.time.monotonic() <= 17 + WATCH_S


def test_on_nodes_that_live_the_limit_holds_and_names_them(given_up: dict[str, float]) -> None:
    lost = waited(role("engine 0", "n2"), role("engine 1", "n3"), timeout_s=12.0)
    assert lost.is_late and roles.time.monotonic() == 12
    assert lost.reason == (
        "loading the engine again: no answer from engine 0 (node 10.0.0.2), engine 1 (node 10.0.0.3) within "
        "12 s (the.limit)"
    )


def test_on_one_machine_there_is_no_node_to_name_or_to_look_at(given_up: dict[str, float]) -> None:
    alone = role("engine 0", "")
    assert "no answer from engine 0 within 12 s" in str(waited(alone, timeout_s=12.0))
    late = silent_or_dead([Call(alone, cast(Any, "x"))], timeout_s=1.0, doing="syncing", within="1 s (s)")
    assert late is not None and late.reason == "syncing: no answer from engine 0 within 1 s (s)"


class Refs:
    """Stands for ray with calls that are done; counts how often each result is deserialised."""

    def __init__(self) -> None:
        self.gets: Counter[str] = Counter()

    def wait(self, refs: list[Any], *, timeout: float, num_returns: int = 1) -> tuple[list[Any], list[Any]]:
        return refs[-num_returns:], refs[:-num_returns]

    def get(self, ref: str, *, timeout: float) -> Answer:
        self.gets[ref] += 1
        return Answer(f"result of {ref}", [], [], Reading("10.0.0.2", 0.0, 0.0, 0.0))


@pytest.fixture
def refs(monkeypatch: pytest.MonkeyPatch) -> Refs:
    found = Refs()
    monkeypatch.setattr(roles, "ray", found)
    return found


def test_each_result_is_deserialised_once(refs: Refs) -> None:
    ranks = [role(f"policy rank {i}", "") for i in range(3)]
    calls = [Call[str](each, cast(Any, each.name)) for each in ranks]
    results = wait_for(calls, timeout_s=1.0, doing="training", setting="the.limit")
    assert results == [f"result of {each.name}" for each in ranks]
    assert silent_or_dead(calls, timeout_s=1.0, doing="training", within="1 s") is None
    assert refs.gets == {each.name: 1 for each in ranks}


def test_each_item_of_a_stream_is_deserialised_once(refs: Refs) -> None:
    stream = Stream[str](role("engine 0", ""), "generate", cast(Any, iter(["a", "b"])))
    limits: dict[str, Any] = {"timeout_s": 1.0, "doing": "sampling", "setting": "the.limit"}
    items = yielded(stream, is_needed=lambda: True, **limits)
    assert list(items) == ["result of a", "result of b"]
    assert refs.gets == {"a": 1, "b": 1}


def test_roles_are_killed_on_all_nodes_at_once_by_one_call_on_each(monkeypatch: pytest.MonkeyPatch) -> None:
    ranks = [role(f"policy rank {i}", "") for i in range(6)]
    ended, together = list[Processes](), threading.Barrier(3)

    def end(found: Processes) -> None:
        together.wait(timeout=10)  # breaks if one node is waited for before the next is begun
        ended.append(found)

    class Ray(Refs):
        def __init__(self) -> None:
            super().__init__()
            self.waits: list[int] = []
            self.killed: list[object] = []

        def wait(self, refs: list[Any], *, timeout: float, num_returns: int = 1) -> Any:
            self.waits.append(num_returns)
            return super().wait(refs, timeout=timeout, num_returns=num_returns)

        def get(self, ref: Any, *, timeout: float) -> Any:
            assert timeout == 0
            if ref == 5:
                raise GetTimeoutError("it is still being built")
            return Processes(f"n{ref % 3}", ((ref, 0),))

        def kill(self, actor: object, *, no_restart: bool) -> None:
            assert len(ended) == 3
            self.killed.append(actor)

    for i, rank in enumerate(ranks):
        rank._actor, rank._processes = rank.name, cast(Any, i)
    found = Ray()
    monkeypatch.setattr(roles, "ray", found)
    monkeypatch.setattr(processes, "end_processes", end)
    kill_roles(ranks)
    assert sorted(ended) == [
        Processes("n0", ((0, 0), (3, 0))),
        Processes("n1", ((1, 0), (4, 0))),
        Processes("n2", ((2, 0),)),
    ]
    assert found.killed == [rank.name for rank in ranks]
    assert found.waits == [6]  # one wait for the processes of all
