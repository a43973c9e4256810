"""The schedule is a pure function of the step: every row of its table, and the rule that forbids deadlock."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlstack.config.schema import Schedule as ScheduleConfig
from rlstack.orchestration.schedule import Schedule


def schedule(sync_interval, lag=0, num_steps=6):
    return Schedule(num_steps=num_steps, sync_interval=sync_interval, lag=lag)


@pytest.mark.parametrize(
    ("sync_interval", "lag", "versions"),
    [
        (None, 0, [0, 0, 0, 0, 0, 0]),  # offline
        (3, 0, [0, 0, 0, 3, 3, 3]),  # semi-online
        (1, 0, [0, 1, 2, 3, 4, 5]),  # online
        (1, 1, [0, 0, 1, 2, 3, 4]),  # one step off
        (3, 1, [0, 0, 0, 0, 3, 3]),
    ],
)
def test_version_for_follows_the_table(sync_interval, lag, versions):
    assert [schedule(sync_interval, lag).version_for(step) for step in range(6)] == versions


def test_syncs_fall_on_multiples_of_the_interval():
    assert [v for v in range(7) if schedule(3).syncs_at(v)] == [3, 6]
    assert [v for v in range(7) if schedule(1).syncs_at(v)] == [1, 2, 3, 4, 5, 6]
    assert not any(schedule(None).syncs_at(v) for v in range(7))


@given(st.integers(1, 20), st.integers(0, 5), st.integers(0, 200))
def test_the_version_a_step_needs_was_synced_before_the_step(sync_interval, lag, step):
    regime = schedule(sync_interval, lag, num_steps=201)
    version = regime.version_for(step)
    assert version <= step
    assert version == 0 or regime.syncs_at(version)
    assert step - version < sync_interval + lag


@pytest.mark.parametrize(
    ("reference_sync", "expected"),
    [("never", []), ("with_generator", [2, 4, 6]), (3, [3, 6])],
)
def test_reference_sync(reference_sync, expected):
    config = ScheduleConfig(num_steps=6, sync_interval=2, reference_sync=reference_sync)
    regime = Schedule.of(config)
    assert [v for v in range(7) if regime.reference_syncs_at(v)] == expected


def test_an_offline_run_never_syncs_its_reference_with_the_generator():
    regime = Schedule.of(ScheduleConfig(num_steps=6, sync_interval=None))
    assert not any(regime.reference_syncs_at(v) for v in range(7))


@given(st.none() | st.integers(1, 20), st.integers(1, 60))
def test_a_run_that_is_lost_loses_less_than_an_interval_of_saves(save_every, num_steps):
    regime = Schedule(num_steps=num_steps, sync_interval=3, save_every=save_every)
    saved = [v for v in range(num_steps + 1) if regime.saves_at(v)]
    if save_every is None:
        assert saved == []
    else:
        assert saved[-1] == num_steps
        assert max(b - a for a, b in pairwise([0, *saved])) <= save_every
        assert len(saved) == -(-num_steps // save_every)


def test_evaluation_between_steps_leaves_out_the_first_and_the_last_version():
    regime = Schedule(num_steps=6, sync_interval=1, evaluate_every=2)
    assert [v for v in range(7) if regime.evaluates_at(v)] == [2, 4]


def test_checkpoints_are_of_every_so_many_steps_and_of_the_last_version():
    saves = {every: Schedule(num_steps=7, sync_interval=3, save_every=every) for every in (2, 7, 50, None)}
    assert {every: [v for v in range(8) if saves[every].saves_at(v)] for every in saves} == {
        2: [2, 4, 6, 7],
        7: [7],
        50: [7],
        None: [],
    }


@pytest.mark.parametrize("reference_sync", ["never", "with_generator", 4])
@pytest.mark.parametrize("sync_interval", [None, 1, 3])
def test_a_run_that_goes_on_at_any_step_has_the_versions_of_one_that_was_never_interrupted(
    sync_interval, reference_sync
):
    config = ScheduleConfig(num_steps=12, sync_interval=sync_interval, reference_sync=reference_sync)
    regime = Schedule.of(config)
    generator = reference = 0
    for step in range(13):
        if regime.syncs_at(step):
            generator = step
        if regime.reference_syncs_at(step):
            reference = step
        assert regime.generator_version_at(step) == generator == regime.version_for(step)
        assert regime.reference_version_at(step) == reference


def test_the_interval_is_a_metric_of_every_step_but_offline():
    assert schedule(3).metrics(4) == {"schedule/sync_interval": 3}
    assert schedule(None).metrics(4) == {}
