"""The list of checks before a run: all that is wrong comes at once, and nothing is touched."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlstack.config.load import load_config
from rlstack.config.own_code import OwnCode
from rlstack.config.schema import RunConfig
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
    rows = tmp_path / "rows.csv"
    rows.write_text("problem,answer\n1+1,2\n")
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
    for part in ("optimizer.lr = -1", "rows.csv", "policy.model", "No module named 'no_module_of_this_name'"):
        assert part in found
    assert not (tmp_path / "runs").exists()
