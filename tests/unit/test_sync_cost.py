"""What syncs take, from rows with known times."""

from typing import Any

import pytest

from rlstack.orchestration.sync_cost import SyncCost, sync_cost

STEP_S, SYNC_S, FIRST_WAIT_S = (
    1.0,
    0.5,
    2.0,
)  # of the trainer alone; of a sync; for a new version's first rollouts


def rows(intervals: list[int], *, wait_s: float = 0.25, evaluate_s: float = 0.0) -> list[dict[str, Any]]:
    """Steps that wait `wait_s` for their rollouts; a sync ends each interval, an evaluation comes with it."""
    made: list[dict[str, Any]] = []
    for interval in intervals:
        for age in range(interval):
            is_last, is_fresh = age == interval - 1, age == 0 and made
            times = {
                "time/generate_wait_s": wait_s + (FIRST_WAIT_S if is_fresh else 0.0),
                "time/sync_s": SYNC_S if is_last else 0.0,
                "time/evaluate_s": evaluate_s if is_last else 0.0,
            }
            step_s = STEP_S + sum(times.values())
            made.append({"step": len(made) + 1, "version_age": age, "time/step_s": step_s, **times})
    return made


@pytest.mark.parametrize("evaluate_s", [0.0, 100.0])
def test_a_sync_costs_its_time_and_what_it_makes_the_trainer_wait(evaluate_s: float) -> None:
    cost = sync_cost(rows([4, 4, 4, 4, 1], evaluate_s=evaluate_s))
    assert cost is not None
    # 5 syncs in the rows and 4 first waits; the rest is work and usual waits.
    assert cost.sync_s == pytest.approx((5 * SYNC_S + 4 * FIRST_WAIT_S) / 4)
    assert cost.step_s == pytest.approx(STEP_S + 0.25)


def test_online_all_of_the_wait_is_the_syncs() -> None:
    cost = sync_cost(rows([1] * 50))
    assert cost is not None
    assert cost.sync_s == pytest.approx(SYNC_S + FIRST_WAIT_S + 0.25, rel=0.05)
    assert cost.step_s == pytest.approx(STEP_S, rel=0.05)


def test_of_one_version_nothing_is_known() -> None:
    assert sync_cost(rows([5])) is None
    assert sync_cost([]) is None


def test_the_interval_for_a_share_is_the_smallest_that_takes_no_more() -> None:
    cost = SyncCost(sync_s=2.0, step_s=1.0)
    assert cost.share(2) == pytest.approx(0.5)
    for share in (0.01, 0.05, 0.3, 0.9):
        interval = cost.interval_for(share)
        assert cost.share(interval) <= share
        assert interval == 1 or cost.share(interval - 1) > share
