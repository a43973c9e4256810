"""The timeline of a run as it goes on: files, steps, shares and totals."""

import json
import math
import os
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from rlstack.telemetry import clocks, nvml, timeline
from rlstack.telemetry.clocks import Reading
from rlstack.telemetry.metrics import check_declared, is_timing
from rlstack.telemetry.nvml import Sample
from rlstack.telemetry.occupancy import Occupancy
from rlstack.telemetry.run_record import read_samples, read_times
from rlstack.telemetry.run_timeline import BETWEEN, STEP, RunTimeline, WholeLaps, step_shares
from rlstack.telemetry.timeline import CONTROLLER, Span
from rlstack.telemetry.waiting import Reason, account


class Clock:
    """Goes only where it is told to."""

    def __init__(self) -> None:
        self.time_s = 100.0

    def __call__(self) -> float:
        return self.time_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    timeline.take()
    clock = Clock()
    monkeypatch.setattr(timeline, "now_s", clock)
    return clock


@pytest.fixture
def run(clock: Clock, tmp_path: Path) -> Iterator[RunTimeline]:
    run = RunTimeline(tmp_path)
    yield run
    run.close()


def waits(reason: Reason, clock: Clock, seconds: float) -> None:
    with timeline.span("phase", reason=reason):
        clock.time_s += seconds


def laps(spans: list[Span]) -> list[Span]:
    return [span for span in spans if span.phase in (STEP, BETWEEN)]


def shares_of(spans: list[Span], start_s: float, end_s: float) -> dict[str, float]:
    accounted = account(spans, start_s, end_s)
    return step_shares({role: Occupancy.of(pieces) for role, pieces in accounted.items()})


def one_step(clock: Clock) -> None:
    """Sampling for 3 s, training for 1 s."""
    now = clock.time_s
    timeline.add([Span("engine 0", "generate", now, now + 3)])
    waits(Reason.rollouts, clock, 3.0)
    timeline.add([Span("policy rank 0", "train", now + 3, now + 4)])
    waits(Reason.training, clock, 1.0)


def test_every_span_is_in_the_file_with_the_step_in_which_it_began(
    run: RunTimeline, clock: Clock, tmp_path: Path
) -> None:
    waits(Reason.start_up, clock, 5.0)
    run.lap(None)
    one_step(clock)
    run.lap(1)
    timeline.add([Span("engine 0", "generate", 103.0, 112.0), Span("engine 0", "sync", 50.0, 51.0)])
    one_step(clock)
    run.lap(2)
    path = tmp_path / "timeline.jsonl"
    spans = read_times(path).spans
    assert [(s.phase, s.start_s, s.end_s, s.step) for s in laps(spans)] == [
        (BETWEEN, 100, 105, None),
        (STEP, 105, 109, 1),
        (STEP, 109, 113, 2),
    ]
    others = [(s.role, s.phase, s.step, s.reason) for s in spans if s not in laps(spans)]
    assert others == [
        (CONTROLLER, "phase", None, "start_up"),
        ("engine 0", "generate", 1, None),
        (CONTROLLER, "phase", 1, "rollouts"),
        ("policy rank 0", "train", 1, None),
        (CONTROLLER, "phase", 1, "training"),
        ("engine 0", "generate", None, None),  # of the start, but known late
        ("engine 0", "sync", None, None),  # before the run
        ("engine 0", "generate", 2, None),
        (CONTROLLER, "phase", 2, "rollouts"),
        ("policy rank 0", "train", 2, None),
        (CONTROLLER, "phase", 2, "training"),
    ]
    first = json.loads(path.read_text().splitlines()[0])
    fields = {"role", "phase", "step", "start_s", "end_s", "reason"}
    assert first.keys() == fields | {"whole", "roles"}
    assert json.loads(path.read_text().splitlines()[1]).keys() == fields


def test_a_steps_shares_are_declared_metrics_and_add_up(run: RunTimeline, clock: Clock) -> None:
    one_step(clock)
    shares = run.lap(1)
    assert shares == {
        "busy/controller": 0.0,
        "busy/engine": 0.75,
        "idle/engine": 0.25,
        "busy/policy": 0.25,
        "idle/policy": 0.0,
        "wait/rollouts": 0.75,
        "time/sampling_s": 3.0,
    }
    check_declared(shares)
    assert all(is_timing(name) for name in shares)
    assert not is_timing("reward/mean")


def test_a_role_that_does_nothing_for_a_step_is_still_accounted_for(run: RunTimeline, clock: Clock) -> None:
    one_step(clock)
    run.lap(1)
    timeline.add([Span("policy rank 0", "train", clock.time_s, clock.time_s + 2)])
    waits(Reason.training, clock, 2.0)
    shares = run.lap(2)
    assert (shares["busy/engine"], shares["idle/engine"]) == (0.0, 1.0)


def test_what_a_role_has_not_reported_yet_counts_as_going_on(run: RunTimeline, clock: Clock) -> None:
    now = clock.time_s
    with timeline.asked("engine 0", "generate"):
        timeline.add([Span("engine 0", "generate", now + 1, now + 2)])
        waits(Reason.rollouts, clock, 4.0)
        assert run.lap(1)["busy/engine"] == 0.75  # all but the first second
        waits(Reason.training, clock, 4.0)
        assert run.lap(2)["busy/engine"] == 1.0


def test_the_totals_of_every_role_add_up_to_the_runs_time(run: RunTimeline, clock: Clock) -> None:
    waits(Reason.start_up, clock, 5.0)
    run.lap(None)
    one_step(clock)
    run.lap(1)
    clock.time_s += 2.0
    run.lap(None)
    assert run.occupancy["engine 0"] == Occupancy({"generate": 3.0}, {}, 8.0)
    policy = Occupancy({"train": 1.0}, {"rollouts": 3.0, "controller": 2.0}, 5.0)
    assert run.occupancy["policy rank 0"] == policy
    assert {seconds.total_s for seconds in run.occupancy.values()} == {11.0}


def test_shares_are_means_over_the_roles_of_a_kind() -> None:
    spans = [
        Span(CONTROLLER, "train", 0, 4, Reason.training),
        Span("policy rank 0", "train", 0, 4),
        Span("policy rank 1", "train", 0, 4),
        Span("policy rank 1", "exchange", 1, 3, Reason.pipeline_bubble),
    ]
    shares = shares_of(spans, 0, 4)
    assert (shares["busy/policy"], shares["wait/pipeline_bubble"]) == (0.75, 0.25)


def test_a_step_that_took_no_time_has_shares_too() -> None:
    shares = shares_of([Span("engine 0", "x", 0, 1)], 2, 2)
    assert shares == {"busy/controller": 0, "busy/engine": 0, "idle/engine": 0}


def test_a_step_has_the_energy_of_its_roles_gpus(run: RunTimeline, clock: Clock, tmp_path: Path) -> None:
    def sample(role: str, time_s: float, power_w: float | None) -> Sample:
        return Sample(role, "0", time_s, power_w, use=0.5, memory_gib=1.0, temperature_c=50.0)

    nvml.take()
    before = [sample("engine 0", 100.0, 200.0), sample("policy rank 0", 101.0, 100.0)]
    nvml.add(before)
    one_step(clock)
    shares = run.lap(1)
    assert (shares["energy/engine"], shares["energy/policy"]) == (800.0, 400.0)
    after = [sample("engine 0", 108.0, 400.0), sample("policy rank 1", 106.0, 50.0)]
    nvml.add(after)
    one_step(clock)
    shares = run.lap(2)
    assert (shares["energy/engine"], shares["energy/policy"]) == (4 * 350.0, 4 * 100.0 + 4 * 50.0)
    check_declared(shares)
    assert list(read_samples(tmp_path / "gpus.jsonl")) == before + after


def test_without_gpus_there_is_no_file_of_theirs(run: RunTimeline, clock: Clock, tmp_path: Path) -> None:
    one_step(clock)
    assert not [name for name in run.lap(1) if name.startswith("energy/")]
    assert not (tmp_path / "gpus.jsonl").exists()


def test_a_timeline_that_goes_on_has_no_gap_and_nothing_of_what_was_undone(
    run: RunTimeline, clock: Clock, tmp_path: Path
) -> None:
    path = tmp_path / "timeline.jsonl"
    waits(Reason.start_up, clock, 5.0)
    run.lap(None)
    one_step(clock)
    run.lap(1)
    state, length = json.loads(json.dumps(run.state())), path.stat().st_size
    one_step(clock)
    run.lap(2)
    clock.time_s += 1000.0

    os.truncate(path, length)
    resumed = RunTimeline(tmp_path)
    resumed.rewind(state)
    timeline.add([Span("engine 0", "sync", 1.0, 2.0), Span("engine 0", "generate", 0.0, clock.time_s + 2)])
    waits(Reason.start_up, clock, 7.0)
    resumed.lap(None)
    one_step(clock)
    resumed.lap(2)
    resumed.close()
    spans = read_times(path).spans
    assert [(s.start_s, s.end_s, s.step) for s in laps(spans)] == [
        (100, 105, None),
        (105, 109, 1),
        (109, 116, None),
        (116, 120, 2),
        (120, 120, None),
    ]
    engine = [(s.phase, s.start_s, s.end_s) for s in spans if s.role == "engine 0"]
    assert engine == [("generate", 105, 108), ("generate", 109, 111), ("generate", 116, 119)]
    assert {seconds.total_s for seconds in resumed.occupancy.values()} == {20.0}
    assert resumed.num_spans == len(spans)


def test_a_sample_of_what_was_undone_is_left_out(run: RunTimeline, clock: Clock, tmp_path: Path) -> None:
    nvml.take()
    one_step(clock)
    run.lap(1)
    state = run.state()
    clock.time_s += 50.0
    run.rewind(state)
    nvml.add([Sample("engine 0", "0", time_s, 200.0, 0.5, 1.0, 50.0) for time_s in (149.0, 155.0)])
    one_step(clock)
    assert run.lap(2)["energy/engine"] == 800.0
    assert [sample.time_s for sample in read_samples(tmp_path / "gpus.jsonl")] == [105.0]


def kept_of(whole: WholeLaps, seconds: list[float], *, num_spans: int = 10) -> list[int]:
    """The steps, from 1, of these durations of which all spans are kept."""
    ends = [100.0, *(100.0 + sum(seconds[: i + 1]) for i in range(len(seconds)))]
    laps = [Span(CONTROLLER, STEP, a, b, step=i + 1) for i, (a, b) in enumerate(pairwise(ends))]
    return [lap.step or 0 for lap in laps if whole.takes(lap, num_spans)]


def test_all_laps_are_kept_whole_until_the_spans_of_the_first_are_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert kept_of(WholeLaps(None), [1.0] * 50) == list(range(1, 51))
    monkeypatch.setattr("rlstack.telemetry.run_timeline.WHOLE_SPANS", 95)
    assert kept_of(WholeLaps(None), [1.0] * 50) == list(range(1, 11))


def test_a_window_of_steps_and_the_slow_ones_are_kept_whole() -> None:
    seconds = [1.0] * 20 + [5.0] + [1.0] * 20 + [1.2, 3.0]
    first = list(range(1, 9))  # which the others are measured against
    assert kept_of(WholeLaps([30, 32]), seconds) == [*first, 21, 30, 31, 32, 43]


def test_steps_that_get_slower_all_the_time_are_not_all_kept_nor_more_spans_than_there_is_room_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rising = [1.001**i for i in range(5000)]  # to 150 times as long
    assert len(kept_of(WholeLaps([5000, 5000]), rising)) < 8 * (2 + 23)  # 1.25**23 is 150
    monkeypatch.setattr("rlstack.telemetry.run_timeline.SLOW_SPANS", 300)
    assert len(kept_of(WholeLaps([5000, 5000]), rising)) == 31


def test_a_run_that_goes_on_chooses_the_same_laps() -> None:
    seconds = [1.0 + (i * 7 % 13) / 3 for i in range(60)]
    whole = kept_of(WholeLaps([20, 22]), seconds)
    before = WholeLaps([20, 22])
    kept = kept_of(before, seconds[:30])
    after = WholeLaps([20, 22], **json.loads(json.dumps(before.state())))
    ends = [100.0 + sum(seconds[:i]) for i in range(30, 61)]
    laps = [Span(CONTROLLER, STEP, a, b, step=i + 31) for i, (a, b) in enumerate(pairwise(ends))]
    assert kept + [lap.step for lap in laps if after.takes(lap, 10)] == whole


def test_of_a_lap_that_is_not_kept_whole_the_seconds_of_each_role_are(
    run: RunTimeline, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlstack.telemetry.run_timeline.WHOLE_SPANS", 1)
    monkeypatch.setattr("rlstack.telemetry.run_timeline.SLOWER", 1e9)
    monkeypatch.setattr("rlstack.telemetry.run_timeline.NUM_SLOWEST", 1)
    one_step(clock)
    run.lap(1)
    timeline.add([Span("engine 0", "sync", 103.5, 104.5)])  # of the first step, but known late
    one_step(clock)
    shares = run.lap(2)
    times = read_times(tmp_path / "timeline.jsonl")
    known = [(span.role, span.phase, span.step) for span in times.spans if span not in laps(times.spans)]
    assert known[-1] == ("engine 0", "sync", 1)
    assert {step for *_, step in known} == {1}
    assert times.whole == [(100.0, 104.0)]
    assert shares["busy/policy"] == 0.25
    engine = Occupancy({"generate": 6.0, "sync": 1.0}, {}, 1.0)
    assert times.all_steps.roles["engine 0"].total_s == engine.total_s == 8.0
    assert times.all_steps.roles == run.occupancy


def test_a_full_buffer_of_spans_says_how_many_were_lost(
    run: RunTimeline, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timeline._process, "done", timeline.Buffer[Span](3))
    assert "timeline/dropped_spans" not in run.lap(1)
    timeline.add([Span("engine 0", "generate", 100.0, 100.0 + i) for i in range(5)])
    clocks.RoleClock("engine 1").read(Reading("10.0.0.2", None, 0.0, 0.0, dropped_spans=4), 0.0)
    row = run.lap(2)
    assert row["timeline/dropped_spans"] == 2 + 4
    check_declared(row)
    assert is_timing("timeline/dropped_spans")  # two runs of the same results may differ in it
    assert "timeline/dropped_spans" not in run.lap(3)  # they are counted once


def test_samples_of_gpus_are_thinned_as_a_run_gets_long(
    run: RunTimeline, clock: Clock, tmp_path: Path
) -> None:
    nvml.take()
    for step in range(1, 41):
        for half in range(200):  # 100 s
            time_s = clock.time_s + half / 2
            nvml.add([Sample("engine 0", "0", time_s, 100.0 + 200 * (half % 2), 0.5, step, 50.0)])
        clock.time_s += 100.0
        assert run.lap(step)["energy/engine"] == pytest.approx(20_000, rel=0.01)
    samples = list(read_samples(tmp_path / "gpus.jsonl"))
    assert [sample.time_s for sample in samples[:200]] == [100.0 + half / 2 for half in range(200)]
    assert len(samples) < 256 * (1 + math.log(4000 / 128)) + 40 < 8000 / 5
    assert samples[-1].memory_gib == 40 and samples[-1].power_w == pytest.approx(200, rel=0.05)
