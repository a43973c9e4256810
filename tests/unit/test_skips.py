"""When skipped steps end a run."""

import pytest

from rlstack.config.schema import AlarmAction
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
