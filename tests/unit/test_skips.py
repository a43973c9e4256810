"""When skipped steps end a run."""

import json
import math
from pathlib import Path

import pytest

from rlstack.config.alarms import AlarmAction
from rlstack.config.schema import RunConfig
from rlstack.telemetry.alarms import StoppedByAlarm
from rlstack.telemetry.recorder import Recorder
from rlstack.telemetry.skips import skipped_too_often


def rows(marks: str) -> list[dict[str, float]]:
    """x: skipped, o: taken, -: a step without examples."""
    return [
        {"step": i + 1} if mark == "-" else {"step": i + 1, "guard/skipped": float(mark == "x")}
        for i, mark in enumerate(marks)
    ]


@pytest.mark.parametrize("marks", ["", "o", "xx", "xxo", "xxoxx", "xx-o", "oxx-", "xxxo"])
def test_fewer_in_a_row_raise_nothing(marks) -> None:
    assert skipped_too_often(rows(marks), limit=3) == []


@pytest.mark.parametrize("marks", ["xxx", "oxxx", "xoxxx", "xx-x", "xxx-", "xxxx"])
def test_that_many_in_a_row_stop_the_run(marks) -> None:
    (raised,) = skipped_too_often(rows(marks), limit=3)
    assert (raised.step, raised.alarm, raised.action) == (len(marks), "skipped_steps", AlarmAction.stop)
    assert "optimizer.max_skipped_steps = 3" in raised.reason
    assert "optimizer.lr" in raised.reason


def test_the_run_ends_in_order_and_says_so(tmp_path: Path) -> None:
    config = RunConfig()
    config.run.dir, config.run.name = str(tmp_path), "a"
    config.optimizer.max_skipped_steps, config.alarms.divergence.action = 2, None
    skipped = {"guard/skipped": 1.0, "grad_norm": math.nan, "loss/total": math.inf}
    with pytest.raises(StoppedByAlarm, match="skipped_steps: 2 steps in a row"), Recorder(config) as recorder:
        assert recorder.step(1, skipped).stop is None
        raise StoppedByAlarm(recorder.step(2, skipped).stop)
    summary = json.loads((tmp_path / "a" / "summary.json").read_text())
    assert (summary["status"], [row["alarm"] for row in summary["alarms"]]) == ("stopped", ["skipped_steps"])
