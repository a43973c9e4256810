"""Which steps are asked for together."""

from __future__ import annotations

from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlstack.orchestration.chunks import chunk_at
from rlstack.orchestration.schedule import Schedule

schedules = st.builds(
    Schedule,
    num_steps=st.integers(1, 60),
    sync_interval=st.none() | st.integers(1, 25),
    lag=st.integers(0, 4),
)


def chunks(schedule: Schedule, max_steps: int) -> list[range]:
    found: list[range] = []
    while (step := found[-1].stop if found else 0) < schedule.num_steps:
        found.append(chunk_at(schedule, step, max_steps=max_steps))
    return found


@given(schedule=schedules, max_steps=st.integers(1, 20))
def test_every_step_is_in_one_chunk_of_one_version_within_the_limit(
    schedule: Schedule, max_steps: int
) -> None:
    cut = chunks(schedule, max_steps)
    assert [step for chunk in cut for step in chunk] == list(range(schedule.num_steps))
    assert all(1 <= len(chunk) <= max_steps for chunk in cut)
    assert all(len({schedule.version_for(step) for step in chunk}) == 1 for chunk in cut)


@given(schedule=schedules, max_steps=st.integers(1, 20))
def test_an_interval_is_cut_only_if_it_must_be_and_then_into_halves_of_the_limit(
    schedule: Schedule, max_steps: int
) -> None:
    for _, group in groupby(chunks(schedule, max_steps), key=lambda chunk: schedule.version_for(chunk[0])):
        pieces = [len(chunk) for chunk in group]
        if sum(pieces) <= max_steps:
            assert len(pieces) == 1
        else:
            assert set(pieces[:-1]) == {max(1, max_steps // 2)}
            assert pieces[-1] <= pieces[0]


@pytest.mark.parametrize(
    ("interval", "lag", "max_steps", "sizes"),
    [
        (10, 0, 16, [10, 10, 10]),
        (20, 0, 16, [8, 8, 4, 10]),
        (10, 1, 16, [11, 10, 9]),
        (1, 0, 16, [1] * 30),
        (None, 0, 16, [8, 8, 8, 6]),
        (None, 0, 1, [1] * 30),
    ],
)
def test_the_chunks_of_thirty_steps(interval: int | None, lag: int, max_steps: int, sizes: list[int]) -> None:
    schedule = Schedule(num_steps=30, sync_interval=interval, lag=lag)
    assert [len(chunk) for chunk in chunks(schedule, max_steps)] == sizes
