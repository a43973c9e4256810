"""docs/reference/run-directory.md names every file of a run, and every field of its lines."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from rlstack.config.schema import Policy, Run, RunConfig, Telemetry
from rlstack.data.records import Prompt, Rollout, RolloutGroup, Score, ScoredGroup
from rlstack.data.samples import sample_rows
from rlstack.orchestration.adaptive_schedule import Decision
from rlstack.orchestration.home import Home
from rlstack.orchestration.restarts import Restarts
from rlstack.orchestration.roles import RoleLost
from rlstack.telemetry.alarms import Raised
from rlstack.telemetry.log_files import FILES, RESTARTS
from rlstack.telemetry.recorder import Recorder
from tests.played_run import make_run

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "run-directory.md").read_text(encoding="utf-8")


def documented(name: str) -> list[str]:
    """The fields in the table below the heading of that file."""
    section = PAGE.split(f"\n## {name}\n")[1].split("\n## ")[0]
    return re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)


def keys(path: Path) -> list[str]:
    return list(json.loads(path.read_text(encoding="utf-8").splitlines()[0]))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    with pytest.raises(RuntimeError, match="as planned"):
        make_run(folder, gpus=True, error=RuntimeError("as planned"), name="run")
    return folder / "run"


def test_every_file_of_lines_has_its_place() -> None:
    for name in (*FILES, RESTARTS):
        assert re.search(rf"^\| \[?`{re.escape(name)}`", PAGE, re.MULTILINE), name


def test_every_file_that_a_run_leaves_is_named(run: Path) -> None:
    named = re.findall(r"`([\w.]+)/?[\w-]*/?`", PAGE.split("\n## ")[0])
    assert {path.name for path in run.iterdir()} <= set(named)


def test_the_fields_of_a_run_are_those_of_the_page(run: Path) -> None:
    for name in ("timeline.jsonl", "gpus.jsonl"):
        assert documented(name) == keys(run / name)
    assert documented("summary.json") == list(json.loads((run / "summary.json").read_text()))


def test_the_fields_of_rollouts_alarms_intervals_and_restarts_are_those_of_the_page() -> None:
    prompt = Prompt(task="sums", row=0, problem="1 + 1", token_ids=(1,), answer="2")
    rollout = Rollout(token_ids=(2,), generator_logprobs=(0.0,), text="2", finished=True, version=0)
    group = RolloutGroup(step=0, prompt=prompt, rollouts=(rollout,))
    [row] = sample_rows([ScoredGroup(group=group, scores=(Score(reward=1.0),))], Telemetry())
    assert documented("rollouts.jsonl") == list(row)
    assert documented("alarms.jsonl") == [field.name for field in fields(Raised)]
    assert documented("intervals.jsonl") == [field.name for field in fields(Decision)]


def test_the_fields_of_a_restart_are_those_of_the_page(tmp_path: Path) -> None:
    config = RunConfig(run=Run(dir=str(tmp_path)), policy=Policy(model="/model"))
    role = SimpleNamespace(name="engine 0", title="engine 0", home=Home())
    lost = RoleLost("engine 0 died", role=cast(Any, role))
    with Recorder(config) as recorder, Restarts(1, recorder.restarted).replacing(lost):
        pass
    assert documented("restarts.jsonl") == keys(tmp_path / "run" / "restarts.jsonl")
