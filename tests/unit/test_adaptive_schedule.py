"""A schedule that is decided as the run goes: what it says of steps, its record, its repetition."""

import json
from dataclasses import asdict
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlstack.config.schema import Adaptive
from rlstack.config.schema import Schedule as ScheduleConfig
from rlstack.errors import ConfigError
from rlstack.orchestration.adaptive_schedule import AdaptiveSchedule, build_schedule
from rlstack.orchestration.chunks import chunk_at
from rlstack.orchestration.schedule import Schedule
from rlstack.policy.reference import follows_policy


def adaptive(num_steps: int = 100, **changes: Any) -> AdaptiveSchedule:
    made = build_schedule(ScheduleConfig(num_steps=num_steps, sync_interval="auto", **changes))
    assert isinstance(made, AdaptiveSchedule)
    return made


def row(schedule: Schedule, step: int, rate: float) -> dict[str, Any]:
    """What `step` logs when the policy drifts by `rate` nats per token and step."""
    age = step - schedule.version_for(step)
    return {"version_age": age, "drift/logprob_abs_mean": rate * age}


def run(schedule: Schedule, rates: list[float]) -> list[dict[str, Any]]:
    """The decisions of a run with one drift rate for each step."""
    rows: list[dict[str, Any]] = []
    decided = [schedule.decide(0, rows)]
    for step, rate in enumerate(rates):
        rows.append(row(schedule, step, rate))
        if schedule.syncs_at(step + 1):
            decided.append(schedule.decide(step + 1, rows))
    return [decision for decision in decided if decision is not None]


RATES = st.lists(st.floats(1e-6, 0.05), min_size=30, max_size=80)


@given(RATES, st.integers(1, 12), st.integers(0, 4))
def test_every_step_has_a_version_that_was_synced_before_it(rates: list[float], start: int, lag: int) -> None:
    schedule = adaptive(len(rates), adaptive=Adaptive(start=start, max=12), lag=lag)
    schedule.decide(0, [])
    rows: list[dict[str, Any]] = []
    generator = reference = 0
    used = []
    for step, rate in enumerate(rates):
        assert schedule.generator_version_at(step) == generator
        assert schedule.reference_version_at(step) == reference
        assert schedule.metrics(step) == {"schedule/sync_interval": schedule.decisions[-1].until - generator}
        used.append(schedule.version_for(step))
        assert used[-1] <= generator
        assert step - used[-1] < 12 + lag
        rows.append(row(schedule, step, rate))
        if schedule.syncs_at(step + 1):
            generator = step + 1
            schedule.decide(step + 1, rows)
        if schedule.reference_syncs_at(step + 1):
            reference = step + 1
    # What was said of a step when it was taken still holds at the end.
    assert [schedule.version_for(step) for step in range(len(rates))] == used
    assert used == sorted(used)


@given(RATES, st.integers(0, 3), st.integers(1, 20))
def test_chunks_of_what_is_decided_cover_each_step_once_and_no_step_beyond(
    rates: list[float], lag: int, most: int
) -> None:
    schedule = adaptive(len(rates), lag=lag)
    schedule.decide(0, [])
    rows: list[dict[str, Any]] = []
    asked, version = 0, 0
    for step, rate in enumerate(rates):
        while asked < len(rates) and schedule.version_for(asked) <= version:
            chunk = chunk_at(schedule, asked, max_steps=most)
            assert chunk.start == asked
            assert {schedule.version_for(of_chunk) for of_chunk in chunk} == {schedule.version_for(asked)}
            asked = chunk.stop
        assert asked > step
        rows.append(row(schedule, step, rate))
        if schedule.syncs_at(step + 1):
            version = step + 1
            schedule.decide(version, rows)


def test_of_a_step_beyond_the_next_sync_the_least_possible_version_is_said() -> None:
    schedule = adaptive(adaptive=Adaptive(start=4), lag=1)
    assert schedule.version_for(50) == 0
    schedule.decide(0, [])
    assert [schedule.version_for(step) for step in (0, 4, 5, 50)] == [0, 0, 4, 4]
    assert [version for version in range(20) if schedule.syncs_at(version)] == [4]


@pytest.mark.parametrize(
    ("reference_sync", "expected"), [("never", []), ("with_generator", [5, 10]), (3, [3, 6, 9, 12])]
)
def test_reference_sync(reference_sync: str | int, expected: list[int]) -> None:
    schedule = adaptive(13, adaptive=Adaptive(start=5), reference_sync=reference_sync)
    run(schedule, [0.004] * 13)
    assert [version for version in range(13) if schedule.reference_syncs_at(version)] == expected
    assert schedule.reference_version_at(12) == (expected[-1] if expected else 0)


@given(RATES, st.integers(1, 30), st.integers(1, 30))
def test_a_sync_falls_on_every_evaluation_and_cuts_the_way_there_evenly(
    rates: list[float], start: int, every: int
) -> None:
    schedule = adaptive(len(rates), adaptive=Adaptive(start=start), evaluate_every=every)
    decisions = run(schedule, rates)
    for version in range(1, len(rates)):
        assert schedule.evaluates_at(version) <= schedule.syncs_at(version)
        assert schedule.evaluates_at(version) == (version % every == 0)
    for decision in decisions:
        assert 0 < decision["until"] - decision["version"] <= decision["interval"]
    unchanged = takewhile(lambda d: d["interval"] == start and d["until"] <= every, decisions)
    lengths = [d["until"] - d["version"] for d in unchanged]
    assert max(lengths, default=0) - min(lengths, default=0) <= 1


@given(RATES, st.data())
def test_a_run_that_goes_on_from_the_record_decides_the_same(rates: list[float], data: st.DataObject) -> None:
    whole = run(adaptive(len(rates)), rates)
    cut = data.draw(st.integers(0, len(rates) - 1))
    first = adaptive(len(rates))
    run(first, rates[:cut])
    record = json.loads(json.dumps([asdict(decision) for decision in first.decisions]))

    second = adaptive(len(rates))
    second.go_on_after(record)
    rows = [row(second, step, rate) for step, rate in enumerate(rates)]
    rows = rows[:cut]
    for step in range(cut, len(rates)):
        rows.append(row(second, step, rates[step]))
        if second.syncs_at(step + 1):
            second.decide(step + 1, rows)
    assert [asdict(decision) for decision in second.decisions] == whole


def log(path: Path, decisions: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(decision) + "\n" for decision in decisions))
    return str(path)


def test_a_replayed_run_syncs_where_the_first_one_did_whatever_it_sees(tmp_path: Path) -> None:
    first = run(adaptive(40), [0.001] * 20 + [0.02] * 20)
    assert len({decision["interval"] for decision in first}) > 2
    replay = Adaptive(replay=log(tmp_path / "intervals.jsonl", first))
    second = run(adaptive(40, adaptive=replay), [0.01] * 40)
    assert [(d["version"], d["interval"]) for d in second] == [(d["version"], d["interval"]) for d in first]
    assert {decision["reason"] for decision in second} == {"replayed"}
    assert second[1]["drift"] != first[1]["drift"]


def test_a_log_that_cannot_be_replayed_is_refused(tmp_path: Path) -> None:
    decisions = run(adaptive(40), [0.001] * 40)
    path = tmp_path / "intervals.jsonl"

    def refusal(text: str, **changes: Any) -> str:
        path.write_text(text)
        with pytest.raises(ConfigError) as refused:
            adaptive(adaptive=Adaptive(replay=str(path)), **{"num_steps": 40, **changes})
        return str(refused.value)

    whole = "".join(json.dumps(decision) + "\n" for decision in decisions)
    assert "is not the intervals.jsonl of a run" in refusal("{}")
    assert "is not the intervals.jsonl of a run" in refusal("step 1")
    assert "has no decision at version 10, and schedule.num_steps is 40" in refusal(whole.splitlines()[0])
    assert "schedule.num_steps is 400" in refusal(whole, num_steps=400)
    assert "schedule.evaluate_every = 7: the run of" in refusal(whole, evaluate_every=7)


def test_a_number_of_steps_makes_the_schedule_that_decides_nothing() -> None:
    schedule = build_schedule(ScheduleConfig(num_steps=6, sync_interval=3))
    assert type(schedule) is Schedule
    assert schedule.decide(0, []) is None
    assert schedule.decide(3, []) is None


def test_where_s_may_be_more_than_1_the_reference_needs_weights_of_its_own() -> None:
    assert not follows_policy(ScheduleConfig(sync_interval="auto"))
    assert follows_policy(ScheduleConfig(sync_interval="auto", reference_sync=1))
