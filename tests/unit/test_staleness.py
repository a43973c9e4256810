"""What a rank lets itself be trained on, held against the schedule."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlstack.config.schema import Adaptive
from rlstack.config.schema import Schedule as Settings
from rlstack.orchestration.schedule import Schedule
from rlstack.policy.staleness import check_versions, max_age

intervals = st.none() | st.integers(1, 12)


@given(intervals, st.integers(0, 5), st.integers(0, 60))
def test_what_the_schedule_asks_for_is_never_refused(interval, lag, step) -> None:
    settings = Settings(num_steps=100, sync_interval=interval, lag=lag)
    version = Schedule.of(settings).version_for(step)
    check_versions([version], policy_version=step, max_age=max_age(settings))


@given(st.integers(1, 12), st.integers(0, 5))
def test_the_bound_is_reached_and_one_version_older_is_refused(interval, lag) -> None:
    settings = Settings(num_steps=100, sync_interval=interval, lag=lag)
    schedule = Schedule.of(settings)
    ages = [step - schedule.version_for(step) for step in range(100)]
    assert max(ages) == max_age(settings)
    with pytest.raises(RuntimeError, match=r"versions 20 to \d+; these are of 19"):
        check_versions([20, 19], policy_version=20 + max(ages), max_age=max_age(settings))


def test_rollouts_of_a_version_to_come_are_refused() -> None:
    with pytest.raises(RuntimeError, match=r"the policy is at version 3, .* these are of 4"):
        check_versions([3, 4], policy_version=3, max_age=None)


def test_an_adaptive_schedule_is_as_wide_as_its_widest_interval() -> None:
    auto = Settings(sync_interval="auto", lag=2, adaptive=Adaptive(start=3, max=7))
    assert max_age(auto) == 8
    auto.adaptive.replay = "intervals.jsonl"
    assert max_age(auto) is None
