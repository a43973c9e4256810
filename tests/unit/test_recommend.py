"""The recommendation for constructed trials: who passes, who is best, what is said of the rest."""

from __future__ import annotations

from random import Random

import pytest

from rlstack.tuning.interval.halving import rungs
from rlstack.tuning.interval.intervals import Interval
from rlstack.tuning.interval.measures import measure
from rlstack.tuning.interval.recommend import Recommendation, Verdict, recommend
from rlstack.tuning.interval.trials import Trial, TrialResult
from tests.tuned import noisy, plan, result

MARGIN = 0.02
JITTER = (0.0, 0.001, -0.001, 0.0005)  # of seeds, the same for no two intervals


def recommended(results: list[TrialResult], margin: float = MARGIN) -> Recommendation | None:
    measured = measure(results, margin=margin, confidence=0.9, accelerators=2)
    return recommend(measured, margin=margin, confidence=0.9)


def seeds_of(
    interval: Interval, reward: float, step_s: float, *, num: int = 4, spread: float = 1.0
) -> list[TrialResult]:
    turn = 0 if interval is None else interval
    return [
        result(interval, seed, reward=reward + spread * JITTER[(seed + turn) % 4], step_s=step_s)
        for seed in range(num)
    ]


def test_the_faster_of_those_that_are_as_good_is_recommended() -> None:
    found = recommended([*seeds_of(1, 0.7, 2.0), *seeds_of(10, 0.695, 1.0), *seeds_of(50, 0.6, 0.9)])
    assert found is not None and found.interval == 10
    assert dict(found.verdicts) == {1: Verdict.not_worse, 10: Verdict.not_worse, 50: Verdict.worse}
    assert any("Worse per step than online by more than 0.02: 50" in reason for reason in found.reasons)


def test_what_is_worse_per_step_is_not_recommended_however_fast_it_is() -> None:
    found = recommended([*seeds_of(1, 0.7, 2.0), *seeds_of(None, 0.6, 0.01)])
    assert found is not None and found.interval == 1


def test_a_slower_interval_is_not_recommended_though_it_passes() -> None:
    found = recommended([*seeds_of(1, 0.7, 1.0), *seeds_of(5, 0.7, 2.0)])
    assert found is not None and found.interval == 1


def test_equals_within_noise_go_by_the_time_of_a_step_and_it_is_said() -> None:
    found = recommended(
        [*seeds_of(1, 0.7, 2.0), *seeds_of(5, 0.7, 1.02, spread=9), *seeds_of(10, 0.69, 0.99, spread=9)]
    )
    assert found is not None and found.interval == 10
    assert "5, 10 are within noise of each other in reward per hour; 10 takes the least time per step" in (
        found.reasons
    )


def test_equals_in_time_too_go_to_the_one_closest_to_online() -> None:
    found = recommended(
        [*seeds_of(1, 0.7, 2.0), *seeds_of(5, 0.7, 1.0, spread=9), *seeds_of(10, 0.7, 1.0, spread=9)]
    )
    assert found is not None and found.interval == 5
    assert any("of the shortest steps 5 is the closest to online" in reason for reason in found.reasons)


def test_noise_larger_than_the_margin_decides_nothing_and_it_is_said() -> None:
    found = recommended([*seeds_of(1, 0.7, 2.0), *seeds_of(10, 0.7, 1.0, spread=40)])
    assert found is not None and found.interval == 1
    assert dict(found.verdicts)[10] is Verdict.undecided
    assert any(reason.startswith("10 is undecided") for reason in found.reasons)


def test_a_wider_margin_lets_more_pass() -> None:
    results = [*seeds_of(1, 0.7, 2.0), *seeds_of(10, 0.65, 1.0)]
    assert [found and found.interval for found in map(recommended, (results, results), (0.02, 0.1))] == [
        1,
        10,
    ]


def test_one_seed_is_not_enough_where_others_had_more() -> None:
    found = recommended([*seeds_of(1, 0.7, 2.0), *seeds_of(5, 0.7, 1.5), *seeds_of(20, 0.7, 0.5, num=1)])
    assert found is not None and found.interval == 5
    assert "20 had one seed and cannot be decided on it" in found.reasons


def test_one_seed_for_all_is_judged_by_its_steps() -> None:
    unsure = result(10, rewards=(*(0.2,) * 10, 0.6, 0.8))
    found = recommended([*seeds_of(1, 0.7, 2.0, num=1), *seeds_of(5, 0.7, 1.5, num=1), unsure])
    assert found is not None and found.interval == 5
    assert any(reason.startswith("10 is undecided") for reason in found.reasons)


@pytest.mark.parametrize("results", [[], seeds_of(10, 0.7, 1.0)], ids=["all failed", "online failed"])
def test_without_online_nothing_is_recommended(results: list[TrialResult]) -> None:
    assert recommended(results) is None


def test_online_alone_is_recommended() -> None:
    found = recommended(seeds_of(1, 0.7, 1.0))
    assert found is not None and (found.interval, len(found.reasons)) == (1, 1)


def chosen_by_halving(random: Random, *, loss_of_20: float) -> Interval:
    """What a whole tuning recommends where s = 20 is twice as fast and loses this much per step."""
    truth = {1: (0.70, 2.0), 5: (0.695, 1.5), 20: (0.70 - loss_of_20, 1.0), 50: (0.5, 0.9)}
    asked = plan(*truth)
    common = {seed: random.gauss(0, 0.05) for seed in asked.seeds}
    results: dict[Trial, TrialResult] = {}
    while todo := rungs(asked, results)[-1].todo:
        reward, step_s = truth[todo[0].interval]
        results[todo[0]] = noisy(
            todo[0], random, reward=reward, noise=0.006, step_s=step_s, common=common[todo[0].seed]
        )
    found = recommended(list(results.values()))
    assert found is not None
    return found.interval


def test_an_interval_at_the_edge_of_the_margin_passes_no_more_often_than_the_confidence_allows() -> None:
    random, repetitions = Random(0), 400
    wrong = sum(chosen_by_halving(random, loss_of_20=MARGIN) == 20 for _ in range(repetitions))
    allowed = 0.05
    assert wrong / repetitions < allowed + 3 * (allowed * (1 - allowed) / repetitions) ** 0.5


def test_a_good_interval_is_found_through_the_noise() -> None:
    random, repetitions = Random(0), 200
    assert (
        sum(chosen_by_halving(random, loss_of_20=0.0) == 20 for _ in range(repetitions)) > 0.8 * repetitions
    )
