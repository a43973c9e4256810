"""The choice of s: where it settles, what it bears, what it is bounded by, and the words for it."""

import math
import random
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlstack.config.schema import Adaptive
from rlstack.orchestration.adaptive import Choice, Seen, choose, look
from rlstack.orchestration.drift import DriftLaw
from rlstack.orchestration.sync_cost import SyncCost

NAN = float("nan")
Law = Callable[[int], float]  # age -> nats per token


def run(
    settings: Adaptive, law: Law, *, num_syncs: int, lag: int = 0, noise: float = 0.0, floor: float = 0.0
) -> list[int]:
    """s of each interval of a run whose drift follows `law`, with log-normal noise."""
    random_numbers = random.Random(0)
    rows: list[dict[str, Any]] = []
    intervals = [settings.start]
    for _ in range(num_syncs):
        for age in range(lag, lag + intervals[-1]):
            drift = law(age) * math.exp(random_numbers.gauss(0.0, noise))
            row = {"version_age": age, "drift/logprob_abs_mean": math.hypot(drift, floor)}
            rows.append(row | {"mismatch/logprob_abs_mean": floor})
        chosen = choose(settings, intervals[-1], look(rows, interval=intervals[-1]), lag=lag)
        intervals.append(chosen.interval)
    return intervals


LAWS = {
    "straight": lambda age: 0.001 * age,
    "random walk": lambda age: 0.005 * math.sqrt(age),
    "accelerating": lambda age: 0.0001 * age**1.7,
}


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
@pytest.mark.parametrize("start", [1, 3, 10, 100])
@pytest.mark.parametrize("lag", [0, 2])
def test_s_settles_where_the_interval_ends_within_the_budget_and_stays(
    law: Law, start: int, lag: int
) -> None:
    settled = run(Adaptive(start=start), law, num_syncs=40, lag=lag)[12:]
    assert len(set(settled)) == 1
    last_age = settled[0] - 1 + lag
    assert 0.45 * 0.02 < law(last_age) <= 0.02  # two tolerances, taken to the power of the law


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
def test_with_noise_s_stays_near_the_budget_and_seldom_moves(law: Law) -> None:
    intervals = run(Adaptive(), law, num_syncs=200, noise=0.2)[10:]
    ends = [law(interval - 1) for interval in intervals]
    assert 0.012 < sum(ends) / len(ends) < 0.02
    assert max(ends) < 0.03
    moves = sum(a != b for a, b in pairwise(intervals))
    assert moves < len(intervals) / 4


def test_s_follows_a_law_that_changes() -> None:
    settings = Adaptive(start=10)
    slow = run(settings, lambda age: 0.0005 * age, num_syncs=10)
    fast = run(Adaptive(start=slow[-1]), lambda age: 0.004 * age, num_syncs=10)
    assert slow[-1] > 25
    assert fast[-1] in (4, 5)


def test_the_difference_between_the_engines_is_no_drift() -> None:
    def law(age: int) -> float:
        return 0.0011 * age

    assert run(Adaptive(), law, num_syncs=10, floor=0.03) == run(Adaptive(), law, num_syncs=10)


def test_where_each_step_is_over_the_budget_s_is_1_and_s_2_is_tried_again_now_and_then() -> None:
    intervals = run(Adaptive(), lambda age: 0.05 * age, num_syncs=200)
    assert intervals[:5] == [10, 5, 3, 2, 1]
    assert set(intervals[5:]) == {1, 2}
    assert 5 <= intervals[5:].count(2) <= len(intervals) / 10


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
def test_a_lag_that_alone_is_over_the_budget_leaves_s_at_1(law: Law) -> None:
    assert run(Adaptive(max_drift=1e-4), law, num_syncs=10, lag=3)[-1] == 1


def seen(scale: float | None, exponent: float = 1.0, cost: SyncCost | None = None) -> Seen:
    return Seen(None if scale is None else DriftLaw(scale, exponent), None, cost)


SYNC = SyncCost(sync_s=1.0, step_s=1.0)


@pytest.mark.parametrize(
    ("settings", "interval", "observed", "expected"),
    [
        (Adaptive(), 10, seen(0.0016), (10, "drift of 0.014 nats per token at age 9, within 0.02")),
        (Adaptive(), 10, seen(0.002), (10, "drift of 0.018 nats per token at age 9, within 0.02")),
        (Adaptive(), 10, seen(0.003), (6, "drift of 0.027 nats per token at age 9, above 0.02")),
        (Adaptive(), 10, seen(1.0), (5, "drift of 9 nats per token at age 9, above 0.02")),
        (Adaptive(), 10, seen(0.001), (17, "drift of 0.009 nats per token at age 9, room up to 0.02")),
        (Adaptive(), 10, seen(0.0), (20, "drift of 0 nats per token at age 9, room up to 0.02")),
        (Adaptive(), 10, seen(None), (10, "no drift was measured")),
        (Adaptive(), 1, seen(None), (2, "nothing is old enough to have drifted, room up to 0.02")),
        (
            Adaptive(max=12),
            10,
            seen(0.0),
            (12, "drift of 0 nats per token at age 9, room up to 0.02; schedule.adaptive.max = 12"),
        ),
        (
            Adaptive(min=8),
            10,
            seen(1.0),
            (8, "drift of 9 nats per token at age 9, above 0.02; schedule.adaptive.min = 8"),
        ),
        # Syncs at s = 4 take a fifth of the time.
        (
            Adaptive(max_sync_share=0.2),
            10,
            seen(0.0016, cost=SYNC),
            (5, "drift of 0.014 nats per token at age 9; syncs take no more than 20.0% from s = 4 on"),
        ),
        (
            Adaptive(max_sync_share=0.2),
            2,
            seen(0.001, cost=SYNC),
            (4, "drift of 0.001 nats per token at age 1, room up to 0.02"),
        ),
        (
            Adaptive(max_sync_share=0.2),
            4,
            seen(0.01, cost=SYNC),
            (2, "drift of 0.03 nats per token at age 3, above 0.02"),
        ),
        (
            Adaptive(max_sync_share=0.2),
            4,
            seen(0.0, cost=SYNC),
            (4, "drift of 0 nats per token at age 3, within 0.02"),
        ),
        (Adaptive(max_sync_share=0.6), 1, seen(None, cost=SYNC), (1, "nothing is old enough to have")),
    ],
)
def test_the_choice_and_its_reason(
    settings: Adaptive, interval: int, observed: Seen, expected: tuple[int, str]
) -> None:
    chosen = choose(settings, interval, observed)
    assert chosen.interval == expected[0]
    assert chosen.reason.startswith(expected[1])


@given(
    st.integers(1, 100),
    st.one_of(st.none(), st.floats(0.0, 1.0)),
    st.floats(0.5, 2.0),
    st.integers(0, 5),
    st.one_of(st.none(), st.floats(0.01, 0.9)),
)
def test_s_stays_within_its_bounds_and_changes_twofold_at_most(
    interval: int, scale: float | None, exponent: float, lag: int, share: float | None
) -> None:
    settings = Adaptive(min=3, max=60, max_sync_share=share)
    interval = min(max(interval, 3), 60)
    chosen = choose(settings, interval, seen(scale, exponent, SYNC), lag=lag).interval
    assert 3 <= chosen <= 60
    assert interval / 2 <= chosen <= interval * 2
    assert isinstance(chosen, int)


def row(age: int, drift: float | None, mismatch: float | None = None, **times: float) -> Mapping[str, Any]:
    return {
        "version_age": age,
        "drift/logprob_abs_mean": drift,
        "mismatch/logprob_abs_mean": mismatch,
        **times,
    }


def test_steps_without_examples_and_drifts_that_are_no_numbers_do_not_count() -> None:
    skipped = {"version_age": 3}  # a step without an example has no such metric
    rows = [row(0, 1e-7, 1e-7), row(1, 0.001), row(2, NAN), skipped, row(4, None), row(5, math.inf)]
    law = look(rows, interval=6).law
    assert law == pytest.approx(DriftLaw(0.001, 1.0), rel=1e-3)
    assert look([row(0, 1e-7), row(1, NAN), skipped], interval=3).law is None
    assert look([], interval=3) == Seen(None, None, None)


def test_only_the_last_steps_count() -> None:
    rows = [*(row(1, 0.5) for _ in range(100)), *(row(1, 0.001) for _ in range(16))]
    assert look(rows, interval=2).law == pytest.approx(DriftLaw(0.001, 1.0))


def test_a_choice_is_the_same_for_the_same_observations() -> None:
    assert (
        choose(Adaptive(), 10, seen(0.003))
        == choose(Adaptive(), 10, seen(0.003))
        == Choice(6, "drift of 0.027 nats per token at age 9, above 0.02")
    )
