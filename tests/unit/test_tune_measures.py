"""Reward per step, per hour and in a time, of trials whose rewards and times are known."""

from __future__ import annotations

from typing import Any

import pytest

from rlstack.tuning.interval.confidence import Over
from rlstack.tuning.interval.measures import Measures, last_steps, measure, reward_within
from rlstack.tuning.interval.trials import Trial, TrialResult
from tests.tuned import STEPS, result


def measured(*results: TrialResult, margin: float = 0.02) -> dict[Any, Measures]:
    found = measure(results, margin=margin, confidence=0.9, accelerators=2)
    return {each.interval: each for each in found}


def test_a_trial_is_read_from_the_files_of_its_run() -> None:
    times = {"time/generate_wait_s": 0.1, "time/reward_s": 0.2, "time/train_s": 0.3, "time/sync_s": 0.0}
    steps: list[dict[str, Any]] = [
        {
            "step": 1,
            "version_age": 0,
            "reward/mean": 0.25,
            **times,
            "time/step_s": 1.0,
            "time/evaluate_s": 0.0,
        },
        {"step": 2, "version_age": 1, **times, "time/step_s": 3.0, "time/evaluate_s": 2.0, "sync/bytes": 7},
    ]
    summary = {"syncs": 1, "tokens": {"generated": 99}, "accuracy_final": 0.8, "wall_s": 12.0}
    found = TrialResult.of(Trial(2, 5), steps, summary)
    assert (found.interval, found.seed, found.rewards, found.versions) == (2, 5, (0.25, None), (0, 0))
    assert found.ends_s == (1.0, 2.0)  # an evaluation is not a step's time
    assert found.part_s == pytest.approx(
        {"generate_wait": 0.2, "reward": 0.4, "train": 0.6, "sync": 0.0, "other": 0.8}
    )
    assert (found.sync_bytes, found.start_up_s, found.step_s) == (7, 10.0, 1.0)


def test_reward_per_step_is_the_mean_of_the_last_sixth() -> None:
    assert [last_steps(n) for n in (2, 12, 120)] == [1, 2, 20]
    rewards = (*(0.0,) * (STEPS - 2), 0.6, 0.8)
    assert measured(result(1, rewards=rewards))[1].reward.mean == pytest.approx(0.7)
    unscored = (*(0.0,) * (STEPS - 2), 0.6, None)
    assert measured(result(1, rewards=unscored))[1].reward.mean == pytest.approx(0.3)


def test_reward_per_hour_is_the_gain_over_the_untrained_policy_in_the_time_of_all_steps() -> None:
    online = result(1, first=0.1, reward=0.7, step_s=3.0)  # one step of version 0, of reward 0.1
    offline = result(None, first=0.2, reward=0.3, step_s=1.0)  # 12 of them: 10 of 0.2 and 2 of 0.3
    untrained = (0.1 + 10 * 0.2 + 2 * 0.3) / 13
    found = measured(online, offline)
    assert found[1].per_hour.mean == pytest.approx((0.7 - untrained) / 36 * 3600)
    assert found[None].per_hour.mean == pytest.approx((0.3 - untrained) / 12 * 3600)
    assert found[1].per_accelerator_hour.mean == pytest.approx(found[1].per_hour.mean / 2)


def test_differences_are_paired_by_seed() -> None:
    results = [result(1, seed, reward=0.7 + seed / 10, accuracy=0.8 + seed / 10) for seed in range(3)]
    results += [result(5, seed, reward=0.69 + seed / 10, accuracy=0.81 + seed / 10) for seed in range(2)]
    difference = measured(*results)[5].reward_difference
    assert difference is not None and difference.low is not None
    assert (difference.num, difference.over) == (2, Over.seeds)
    assert difference.mean == pytest.approx(-0.01) == pytest.approx(difference.low)  # without any noise
    accuracy = measured(*results)[5].accuracy_difference
    assert accuracy is not None and accuracy.mean == pytest.approx(0.01)


def test_a_single_seed_is_compared_step_by_step() -> None:
    ours = result(5, rewards=(*(0.2,) * (STEPS - 2), 0.60, 0.64))
    difference = measured(result(1, reward=0.7), ours)[5].reward_difference
    assert difference is not None and difference.low is not None
    assert (difference.num, difference.over) == (2, Over.steps)
    assert difference.mean == pytest.approx(-0.08) and difference.low < difference.mean


def test_without_online_there_is_no_difference() -> None:
    assert measured(result(5))[5].reward_difference is None


def test_the_target_is_what_online_ends_with_less_the_margin() -> None:
    found = measured(result(1, reward=0.7, step_s=2.0), result(5, reward=0.69), result(None, reward=0.5))
    assert found[1].target_s is not None and found[1].target_s.mean == 24.0  # the last of 12 steps of 2 s
    assert found[5].target_s is not None and found[5].target_s.mean == 12.0
    assert found[None].target_s is None


def test_the_reward_in_a_time_weighs_each_step_by_its_part_in_it() -> None:
    slow = result(1, rewards=(0.0, 0.5, None, 1.0), step_s=2.0)
    assert reward_within(slow, 8.0) == pytest.approx(0.5)
    assert reward_within(slow, 3.0) == pytest.approx((0.0 * 2 + 0.5 * 1) / 3)
    found = measured(slow, result(None, rewards=(0.3,) * 4, step_s=0.75))
    assert found[1].reward_in_time.mean == pytest.approx(0.5 / 3)  # the shortest trial takes 3 s
