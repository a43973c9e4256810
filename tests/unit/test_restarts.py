"""Replacements on the terminal and in restarts.jsonl: when they begin, and what comes of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from rlstack.config.schema import Policy, Run, RunConfig
from rlstack.orchestration.home import Home
from rlstack.orchestration.restarts import Restarts, Settle
from rlstack.orchestration.roles import EngineLost, NodeLost, Role, RoleError
from rlstack.telemetry.recorder import Recorder


def role(name: str = "engine 0", address: str = "10.0.0.2") -> Role:
    title = f"{name} (node {address})" if address else name
    return cast(Role, SimpleNamespace(name=name, title=title, log="x", home=Home(address=address)))


def lost(who: Role) -> EngineLost:
    return EngineLost(f"sampling rollouts: {who.title} died\n  its log: x", role=who)


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    return RunConfig(run=Run(dir=str(tmp_path), name="a"), policy=Policy(model="/model"))


def restarts(recorder: Recorder, settle: Settle = lambda roles: (), max_restarts: int = 3) -> Restarts:
    return Restarts(max_restarts, recorder.restarted, say=recorder.note, settle=settle)


def rows(config: RunConfig) -> list[dict[str, Any]]:
    folder = Path(config.run.dir, config.run.name)
    found = [json.loads(line) for line in (folder / "restarts.jsonl").read_text().splitlines()]
    assert json.loads((folder / "summary.json").read_text())["restarts"] == found
    return [{name: value for name, value in row.items() if name != "seconds"} for row in found]


def test_the_beginning_is_said_before_and_the_end_after(
    config: RunConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    with Recorder(config) as recorder, restarts(recorder, lambda roles: ["10.0.0.3"]).replacing(lost(role())):
        assert capsys.readouterr().out.splitlines()[-1] == (
            "engine 0 (node 10.0.0.2) was lost: sampling rollouts: engine 0 (node 10.0.0.2) died; starting "
            "another one on 10.0.0.3"
        )
    assert "engine 0 was replaced on 10.0.0.3 in 0.0 s: sampling rollouts" in capsys.readouterr().out
    (row,) = rows(config)
    assert row == {
        "step": 0,
        "role": "engine 0",
        "node": "10.0.0.2",
        "reason": "sampling rollouts: engine 0 (node 10.0.0.2) died",
        "moved_to": "10.0.0.3",
        "error": None,
        "failed": False,
    }


@pytest.mark.parametrize(("address", "where"), [("10.0.0.2", " on 10.0.0.2\n"), ("", "\n")])
def test_one_that_stays_is_said_to(
    config: RunConfig, capsys: pytest.CaptureFixture[str], address: str, where: str
) -> None:
    with Recorder(config) as recorder, restarts(recorder).replacing(lost(role(address=address))):
        assert f"died; starting another one{where}" in capsys.readouterr().out
    assert "engine 0 was replaced in 0.0 s: " in capsys.readouterr().out
    assert rows(config)[0]["node"] == (address or None)


def test_a_replacement_that_fails_is_not_called_done(
    config: RunConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    with Recorder(config) as recorder:
        replaced = restarts(recorder, max_restarts=1)
        with pytest.raises(EngineLost), replaced.replacing(lost(role())):
            raise EngineLost("loading the engine again: engine 0 died\n  its log: x", role=role())
        spent = r"may replace 1 role \(recovery\.max_restarts\), and has tried to: 1, of which 1 failed"
        with pytest.raises(RoleError, match=spent), replaced.replacing(lost(role())):
            pytest.fail("it was replaced")
    out = capsys.readouterr().out
    assert "engine 0 could not be replaced: loading the engine again: engine 0 died (after 0.0 s)\n" in out
    assert "was replaced" not in out
    (row,) = rows(config)
    assert (row["failed"], row["error"]) == (True, "loading the engine again: engine 0 died")


def test_an_interrupted_one_is_no_replacement_either(config: RunConfig) -> None:
    with (
        pytest.raises(KeyboardInterrupt),
        Recorder(config) as recorder,
        restarts(recorder).replacing(lost(role())),
    ):
        raise KeyboardInterrupt
    assert (rows(config)[0]["failed"], rows(config)[0]["error"]) == (True, "interrupted")


def test_a_lost_node_without_another_one_begins_nothing(
    config: RunConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    ranks = [role("policy rank 0", "10.0.0.1"), role("policy rank 1")]
    asked: list[Sequence[Role]] = []

    def settle(roles: Sequence[Role]) -> list[str]:
        asked.append(roles)
        raise NodeLost("node 10.0.0.2 was lost, with engine 0 on it")

    with (
        pytest.raises(NodeLost),
        Recorder(config) as recorder,
        restarts(recorder, settle).replacing(lost(role()), ranks),
    ):
        pytest.fail("there is no node to replace it on")
    assert asked == [ranks]
    out = capsys.readouterr().out
    assert "starting another one" not in out
    assert (
        "engine 0 could not be replaced: node 10.0.0.2 was lost, with engine 0 on it (after 0.0 s)\n" in out
    )


class Progress:
    """Stands for a run: its time, and the steps that it has done."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, window_s: float | None) -> None:
        self.now_s, self.step = 0.0, 0
        clock = SimpleNamespace(monotonic=lambda: self.now_s)
        monkeypatch.setattr("rlstack.orchestration.restarts.time", clock)
        self.restarts = Restarts(2, window_s=window_s, step=lambda: self.step)

    def lose(self, now_s: float, step: int) -> None:
        self.now_s, self.step = now_s, step
        with self.restarts.replacing(lost(role())):
            pass


def test_replacements_count_for_the_window_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Progress(monkeypatch, window_s=100.0)
    for i in range(20):  # never more than two within 100 s
        run.lose(60.0 * i, step=i)
    spent = r"2 roles within 100 s \(recovery\.max_restarts, recovery\.window_s\), and has: 2$"
    with pytest.raises(RoleError, match=spent):
        run.lose(60.0 * 19 + 30.0, step=20)
    run.lose(60.0 * 20, step=20)


def test_replacements_at_one_step_count_however_long_they_take(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Progress(monkeypatch, window_s=100.0)
    run.lose(0.0, step=7)
    run.lose(1000.0, step=5)  # after the run went back to a checkpoint
    with pytest.raises(RoleError, match=r"recovery\.max_restarts"):
        run.lose(2000.0, step=5)
    run.lose(3000.0, step=8)


def test_without_a_window_every_replacement_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Progress(monkeypatch, window_s=None)
    run.lose(0.0, step=0)
    run.lose(1e6, step=1000)
    with pytest.raises(RoleError, match=r"may replace 2 roles \(recovery\.max_restarts\), and has: 2$"):
        run.lose(2e6, step=2000)
