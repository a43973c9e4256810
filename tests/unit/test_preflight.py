"""The list of checks before a run: all that is wrong comes at once, and nothing is touched."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rlstack.cli import app
from rlstack.config.load import load_config
from rlstack.config.own_code import OwnCode
from rlstack.config.schema import RunConfig
from rlstack.doctor.read_settings import read
from rlstack.errors import ConfigError
from rlstack.preflight.planned import Planned
from rlstack.preflight.runner import Check, find_problems
from rlstack.running import check

QUICKSTART = Path(__file__).parents[2] / "configs" / "quickstart.yaml"


def planned(*overrides: str) -> Planned:
    return Planned(config=load_config(QUICKSTART, overrides) if overrides else RunConfig(), own=OwnCode())


def says(*lines: str) -> Check:
    return Check(lines[0] if lines else "nothing", lambda _: lines)


def raises(planned: Planned) -> Iterator[str]:
    yield "lost with what follows"
    raise ConfigError("one\ntwo")


def test_a_check_that_fails_keeps_only_those_from_being_made_that_need_it() -> None:
    checks = [
        says("a"),
        Check("needs a", lambda _: ["never"], needs=("a",)),
        Check("needs what was skipped", lambda _: ["never"], needs=("needs a",)),
        Check("raises", raises),
        Check("needs nothing", lambda _: []),
        Check("needs that", lambda _: ["z"], needs=("needs nothing",)),
        Check("slow", lambda _: ["never"], is_slow=True),
    ]
    assert find_problems(planned(), checks) == {
        "a": ["a"],
        "raises": ["one", "two"],
        "needs nothing": [],
        "needs that": ["z"],
    }


def test_checks_that_wait_do_so_beside_the_others() -> None:
    other = threading.Event()

    def waits(planned: Planned) -> list[str]:
        return [] if other.wait(10) else ["the check after it was not made meanwhile"]

    def goes_on(planned: Planned) -> list[str]:
        other.set()
        return ["late"]

    checks = [Check("waits", waits, waits=True), Check("goes on", goes_on, is_slow=True)]
    assert find_problems(planned(), checks) == {"waits": [], "goes on": ["late"]}


def test_an_interrupt_ends_the_processes_that_checks_wait_for() -> None:
    from rlstack.child_process import run

    of_run = planned()

    def waits(planned: Planned) -> list[str]:
        run(["-c", "import time; time.sleep(60)"], limit_s=60, running=planned.children)
        return []

    def interrupted(planned: Planned) -> list[str]:
        while not planned.children:
            time.sleep(0.01)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        find_problems(of_run, [Check("waits", waits, waits=True), Check("interrupted", interrupted)])
    (child,) = of_run.children
    assert child.wait(10) < 0


def test_mistakes_of_every_kind_come_in_one_error(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"problem": "1 + 1"}\n')
    config = load_config(
        QUICKSTART,
        [
            "optimizer.lr=-1",
            f"data.tasks[0].path={rows}",
            f"policy.model={tmp_path}/no-model",
            "objective.loss=no_module_of_this_name:Loss",
            f"run.dir={tmp_path}/runs",
        ],
    )
    with pytest.raises(ConfigError) as refused:
        check(config)
    found = str(refused.value)
    for part in (
        "optimizer.lr = -1",
        "rows.jsonl",
        "policy.model",
        "No module named 'no_module_of_this_name'",
    ):
        assert part in found
    assert not (tmp_path / "runs").exists()


def test_check_says_what_would_run_and_touches_nothing(tmp_path: Path) -> None:
    before = tmp_path / "quickstart" / "config.yaml"
    before.parent.mkdir()
    before.write_text("of an earlier run")
    arguments = ["train", str(QUICKSTART), f"run.dir={tmp_path}", "--check"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    for part in ("Nothing to refuse", "dpo for 120 steps", "fractions (math, 3181 prompts)", "moved aside"):
        assert part in done.output
    done = CliRunner().invoke(app, [*arguments, "rollout.n=0", "policy.logprob_kernel=triton"])
    assert done.exit_code == 2
    assert [line.split(" = ")[0] for line in done.output.splitlines()] == [
        "error: rollout.n",
        "error: policy.logprob_kernel",
    ]
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [before]


def test_check_and_the_doctor_find_the_same(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"problem": "1 + 1"}\n')
    overrides = [f"data.tasks[0].path={tmp_path}/rows.jsonl", "run.dir=s3://bucket", "policy.model=/nowhere"]
    with pytest.raises(ConfigError) as refused:
        check(load_config(QUICKSTART, overrides))
    of_doctor = read(QUICKSTART, overrides)
    assert sorted(str(refused.value).splitlines()) == sorted(
        [*of_doctor["refused"], *of_doctor["model_refused"]]
    )
    assert len(of_doctor["refused"]) == 2
