"""Calls to roles: their methods are those of protocols, never strings, and carry their phase along."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any, cast

import pytest

from rlstack.config.schema import TransferMethod
from rlstack.orchestration.protocols import GeneratorEngine, PolicyRank
from rlstack.orchestration.role_host import Host, Method, phase
from rlstack.orchestration.roles import Role
from rlstack.telemetry import timeline

ROOT = Path(__file__).parents[2]
CALLS = ("start", "start_beside", "stream")


class Actor:
    """Stands for Ray's handle of an actor; notes what is called."""

    def __init__(self) -> None:
        self.called: list[tuple[Any, ...]] = []
        self.call = self.stream = self

    def options(self, **options: str) -> Actor:
        self.called.append((options,))
        return self

    def remote(self, asked_s: float, *arguments: Any, **keywords: Any) -> str:
        self.called.append((*arguments, keywords))
        return "a reference"


def test_a_call_is_one_call_of_ray_with_the_name_and_the_phase_of_the_method() -> None:
    role: Role[Any] = Role.__new__(Role)
    role._actor = actor = Actor()
    call = role.start(PolicyRank.begin_send, 4, TransferMethod.reshard)
    assert (call.role, call.ref) == (role, "a reference")
    assert actor.called == [("begin_send", "sync", False, 4, TransferMethod.reshard, {})]
    actor.called.clear()
    role.start_beside(GeneratorEngine.drop_streams, before=3)
    beside = {"concurrency_group": "beside"}
    assert actor.called == [(beside,), ("drop_streams", "drop_streams", False, {"before": 3})]
    stream = role.stream(cast(Any, GeneratorEngine.generate_stream), [])
    assert (stream.role, stream.phase) == (role, "generate")


def test_the_host_calls_the_method_within_its_phase(monkeypatch: pytest.MonkeyPatch) -> None:
    class Worker:
        @phase("train")
        def double(self, number: int) -> int:
            return 2 * number

    monkeypatch.setattr("ray.util.get_node_ip_address", lambda: "10.0.0.2")
    host = Host.__new__(Host)
    host._target, host._broken = Worker(), None
    timeline.take()
    answer = host.call(0.0, *Method.of(Worker.double), 21)
    assert answer.result == 42
    assert [span.phase for span in answer.spans] == ["train"]


def test_connections_are_looked_at_where_a_method_opens_them() -> None:
    for method in (PolicyRank.start, PolicyRank.open_transfer, GeneratorEngine.open_transfer):
        assert Method.of(method).opens_connections
    assert not Method.of(PolicyRank.train_step).opens_connections


@pytest.mark.parametrize("folder", ["rlstack", "benchmarks", "tests", "tools"])
def test_no_method_of_a_role_is_a_string(folder: str) -> None:
    for path in (ROOT / folder).rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        if "orchestration.roles" not in text:
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
                is_text = isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, str)
                assert not (node.func.attr in CALLS and is_text), f"{path}:{node.lineno}"
