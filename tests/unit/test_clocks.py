"""What roles measure by clocks of their own comes to the driver's time, as near as their calls tell it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rlstack.telemetry import clocks, nvml, timeline
from rlstack.telemetry.clocks import ClockAlarms, Reading, RoleClock
from rlstack.telemetry.nvml import Sample
from rlstack.telemetry.run_record import read_times
from rlstack.telemetry.run_timeline import RunTimeline
from rlstack.telemetry.time_sections import clock_words
from rlstack.telemetry.timeline import Span
from rlstack.telemetry.waiting import Reason

NODE = "10.0.0.2"
WAY_S = 0.002  # that a message takes
SKEWS = (0.0, 0.5, -0.5, 2.0, -2.0, 6.0, -6.0)


@pytest.fixture(autouse=True)
def nothing_known() -> Iterator[None]:
    yield
    clocks.forget()


class Driver:
    """A clock that goes only where it is told to, and the engine that is called by it."""

    def __init__(self, *, skew_s: float, clock: RoleClock | None = None) -> None:
        self.time_s = 100.0
        self.skew_s = skew_s
        self.clock = clock or RoleClock("engine 0")

    def __call__(self) -> float:
        return self.time_s

    def call(self, seconds: float, phase: str, *, queued_s: float = 0.0) -> float:
        """A call that the engine works on for `seconds`; the offset that is known after it."""
        asked_s = self.time_s
        begun_s = asked_s + queued_s + WAY_S + self.skew_s
        done_s = begun_s + seconds
        self.time_s = done_s - self.skew_s + WAY_S
        self.clock.read(Reading(NODE, asked_s, begun_s, done_s), self.time_s)
        clocks.keep(self.clock, [Span("engine 0", phase, begun_s, done_s)], [])
        return self.clock.offset_s


@pytest.mark.parametrize("skew_s", SKEWS)
def test_shares_and_seconds_are_right_however_the_clocks_are_set(
    skew_s: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = Driver(skew_s=skew_s)
    monkeypatch.setattr(timeline, "now_s", driver)
    run = RunTimeline(tmp_path)
    for step in range(1, 6):
        with timeline.span("wait", reason=Reason.rollouts):
            driver.call(4.0, "generate")
        driver.time_s = 100.0 + 5.0 * step
        row = run.lap(step)
        assert row["busy/engine"] == pytest.approx(0.8, abs=WAY_S)
        assert row["time/sampling_s"] == pytest.approx(4.0, abs=2 * WAY_S)
    run.close(with_lap=False)
    sampled = [span for span in read_times(tmp_path / "timeline.jsonl").spans if span.role == "engine 0"]
    assert [span.step for span in sampled] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("skew_s", SKEWS)
def test_the_offset_is_known_to_the_time_that_a_message_takes(skew_s: float) -> None:
    assert Driver(skew_s=skew_s).call(60.0, "generate") == pytest.approx(skew_s, abs=2 * WAY_S)


def test_clocks_that_agree_move_nothing() -> None:
    driver = Driver(skew_s=0.0)
    assert [driver.call(1.0, "generate", queued_s=queued_s) for queued_s in (0.0, 30.0, 0.0)] == [0.0] * 3


def test_a_call_that_waited_for_its_turn_takes_nothing_from_what_a_quick_one_told() -> None:
    driver = Driver(skew_s=-2.0)
    assert driver.call(5.0, "generate", queued_s=60.0) == 0.0  # it may have begun any time before
    driver.call(0.01, "sync")
    assert driver.call(5.0, "generate", queued_s=60.0) == pytest.approx(-2.0, abs=0.05)


def test_what_came_before_the_quick_call_is_moved_by_what_that_told() -> None:
    timeline.take()
    driver = Driver(skew_s=-2.0)
    driver.call(5.0, "start_up", queued_s=60.0)
    clocks.keep(driver.clock, [], [Sample("engine 0", "0", 150.0, *[None] * 4)])
    driver.call(0.01, "sync")
    clocks.settle()
    start_up, _ = timeline.take()
    assert (start_up.start_s, start_up.end_s) == pytest.approx((160.0, 165.0), abs=3 * WAY_S)
    (sample,) = nvml.take()
    assert sample.time_s == pytest.approx(152.0, abs=2 * WAY_S)


def test_a_clock_that_drifts_is_followed() -> None:
    driver = Driver(skew_s=0.0)
    for _ in range(200):
        driver.skew_s += 0.001
        offset_s = driver.call(10.0, "generate")
    assert offset_s == pytest.approx(driver.skew_s, abs=3 * WAY_S) and driver.skew_s > 0.19


def test_a_clock_that_is_set_is_followed_at_once() -> None:
    driver = Driver(skew_s=3.0)
    driver.call(1.0, "generate")
    driver.skew_s = -3.0
    assert driver.call(1.0, "generate") == pytest.approx(-3.0, abs=2 * WAY_S)


def test_later_results_of_a_stream_bound_from_one_side() -> None:
    ahead, behind = RoleClock("engine 0"), RoleClock("engine 1")
    assert ahead.offset_s == 0.0
    for clock, done_s in ((ahead, 101.5), (behind, 98.5)):
        clock.read(Reading(NODE, None, 50.0, done_s), 100.0)
    assert (ahead.offset_s, behind.offset_s) == (pytest.approx(1.5), 0.0)


def test_each_node_is_told_of_once_with_what_to_do() -> None:
    alarms = ClockAlarms()
    assert alarms.update(1) == []
    Driver(skew_s=0.05, clock=RoleClock("engine 1")).call(1.0, "generate")
    assert alarms.update(1) == []
    for name in ("engine 0", "policy rank 0"):
        Driver(skew_s=-2.0, clock=RoleClock(name)).call(1.0, "train")
    (raised,) = alarms.update(2)
    assert (raised.step, raised.alarm, raised.action.value, raised.lr_factor) == (2, "clocks", "warn", 1.0)
    assert raised.reason.startswith(f"the clock of node {NODE} is 2.00 s behind the driver's; ")
    assert "NTP" in raised.reason
    assert alarms.update(3) == []
    assert clocks.offsets() == {NODE: pytest.approx(-2.0, abs=2 * WAY_S)}


def test_the_report_tells_by_how_much_spans_were_moved() -> None:
    assert clock_words({}) == clock_words({NODE: 0.04}) == ""
    assert clock_words({NODE: 2.0, "10.0.0.3": 0.0}) == (
        "Clocks differ; what these nodes measured was moved to the driver's clock: 10.0.0.2 by -2.00 s."
    )
