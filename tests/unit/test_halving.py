"""Which trials are run, from results alone: the rounds, who is kept, failures, going on."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlstack.errors import ConfigError
from rlstack.tuning.interval.budget import shorten, shorter_plans
from rlstack.tuning.interval.halving import Plan, Rung, rungs
from rlstack.tuning.interval.intervals import Interval
from rlstack.tuning.interval.trials import Trial, TrialResult
from tests.tuned import plan, result

ALL = (1, 2, 5, 10, 20, 50, None)


def played(
    asked: Plan, outcome: Callable[[Trial], TrialResult | None]
) -> tuple[list[Trial], list[Rung], dict[Trial, TrialResult]]:
    """The trials in the order in which they are run; one without an outcome fails."""
    order: list[Trial] = []
    results: dict[Trial, TrialResult] = {}
    given_up: set[Trial] = set()
    while todo := rungs(asked, results, given_up)[-1].todo:
        order.append(todo[0])
        if (found := outcome(todo[0])) is None:
            given_up.add(todo[0])
        else:
            results[todo[0]] = found
    return order, rungs(asked, results, given_up), results


def faster_with_s(trial: Trial) -> TrialResult:
    return result(
        trial.interval, trial.seed, step_s=1.0 if trial.interval is None else 1 + 1 / trial.interval
    )


def test_the_better_half_of_the_others_goes_on_with_online_and_more_seeds() -> None:
    order, rounds, _ = played(plan(*ALL), faster_with_s)
    assert [rung.intervals for rung in rounds] == [ALL, (1, 20, 50, None), (1, 50, None)]
    assert [rung.seeds for rung in rounds] == [(0,), (0, 1), (0, 1, 2, 3)]
    assert rounds[-1].todo == ()
    assert len(order) == len(set(order)) == 7 + 4 + 2 * 3 == len(plan(*ALL).most_trials())


def test_seeds_change_slower_than_intervals() -> None:
    order, _, _ = played(plan(1, 5), faster_with_s)
    assert order == [
        Trial(1, 0),
        Trial(5, 0),
        Trial(1, 1),
        Trial(5, 1),
        *((s, k) for k in (2, 3) for s in (1, 5)),
    ]


def test_what_is_worse_per_step_is_out_first_however_fast() -> None:
    def outcome(trial: Trial) -> TrialResult:
        is_bad = trial.interval in (50, None)
        return result(
            trial.interval, trial.seed, reward=0.3 if is_bad else 0.7, step_s=0.01 if is_bad else 1.0
        )

    _, rounds, _ = played(plan(1, 5, 50, None), outcome)
    assert rounds[0].kept[:2] == (1, 5) and len(rounds[0].kept) == 3
    assert rounds[-1].intervals == (1, 5)


def test_a_failure_does_not_stop_the_others_and_an_interval_without_results_is_out() -> None:
    order, rounds, results = played(plan(1, 5, 10), lambda t: None if t.interval == 5 else faster_with_s(t))
    assert Trial(5, 0) in order and Trial(5, 1) not in order
    assert rounds[-1].intervals == (1, 10)
    assert {trial.interval for trial in results} == {1, 10}


def test_online_is_tried_again_with_other_seeds_after_a_failure() -> None:
    order, _, results = played(plan(1, 5), lambda t: None if t == Trial(1, 0) else faster_with_s(t))
    assert Trial(1, 1) in order and Trial(1, 1) in results


def test_where_all_fail_it_ends() -> None:
    order, rounds, _ = played(plan(*ALL), lambda trial: None)
    assert {trial.interval for trial in order[7:]} == {1}
    assert rounds[-1].todo == ()


@given(st.integers(0, 17))
def test_a_tuning_that_was_interrupted_goes_on_where_it_was(num_done: int) -> None:
    order, _, results = played(plan(*ALL), faster_with_s)
    done = {trial: results[trial] for trial in order[:num_done]}
    rest = []
    while todo := rungs(plan(*ALL), done)[-1].todo:
        rest.append(todo[0])
        done[todo[0]] = results[todo[0]]
    assert rest == order[num_done:]


@pytest.mark.parametrize(("num_seeds", "counts"), [(1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (6, [1, 2, 4, 6])])
def test_seeds_double_from_round_to_round(num_seeds: int, counts: list[int]) -> None:
    assert plan(1, 5, seeds=num_seeds).rungs == counts


def seconds_of(candidate: Plan) -> float:
    return sum(10.0 + candidate.num_steps for _ in candidate.most_trials())


def test_what_fits_is_not_shortened() -> None:
    asked = plan(*ALL, num_steps=120)
    assert shorten(asked, seconds_of(asked), seconds_of) == asked


def test_seeds_go_first_then_intervals_then_steps_then_the_second_seed() -> None:
    steps = [(len(p.seeds), p.intervals, p.num_steps) for p in shorter_plans(plan(*ALL, num_steps=120))]
    four: tuple[Interval, ...] = (1, 5, 20, None)
    assert steps == [
        (4, ALL, 120),
        (3, ALL, 120),
        (2, ALL, 120),
        (2, four, 120),
        (2, (1, 20), 120),
        (2, (1, 20), 60),
        (1, (1, 20), 60),
    ]


@given(st.floats(100, 5000))
def test_a_shortened_plan_fits_and_keeps_online(budget_s: float) -> None:
    asked = plan(*ALL, num_steps=120)
    try:
        found = shorten(asked, budget_s, seconds_of)
    except ConfigError as error:
        assert all(seconds_of(candidate) > budget_s for candidate in shorter_plans(asked))
        assert "--budget-minutes" in str(error)
    else:
        assert seconds_of(found) <= budget_s
        assert found.intervals[0] == 1 and len(found.intervals) >= 2
