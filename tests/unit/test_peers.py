"""What benchmarks/peers.py makes of the steps of two stacks."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

BENCHMARKS = str(Path(__file__).parents[2] / "benchmarks")
sys.path.append(BENCHMARKS)  # behind everything else: one of its scripts is called kernels
from peers_steps import (  # noqa: E402
    Step,
    median_or_none,
    rlstack_steps,
    summary,
    time_to_reward,
    trl_steps,
    with_ratios,
)

sys.path.remove(BENCHMARKS)

STEP = Step(
    step_s=0.5,
    generate_s=0.2,
    reward_s=0.05,
    sync_s=0.0,
    reward=0.25,
    rollouts=128,
    generated_tokens=3000,
    trained_tokens=5000,
)


def rising(*rewards):
    return [replace(STEP, reward=reward) for reward in rewards]


def test_the_ranks_of_a_trl_run_share_a_step():
    rank = {"generate_s": 0.2, "reward_s": 0.1, "rollouts": 64, "tokens": 1000}
    (step,) = trl_steps(
        [[rank | {"step_s": 0.6, "rewards": 16}], [rank | {"step_s": 0.9, "rewards": 48}]], prompt_tokens=19
    )
    assert step.step_s == 0.6
    assert (step.rollouts, step.reward, step.generated_tokens) == (128, 0.5, 2000)
    assert step.trained_tokens == 2000 + 128 * 19


def test_ranks_must_have_seen_the_same_number_of_steps():
    row = {"step_s": 1, "generate_s": 0, "reward_s": 0, "rollouts": 1, "tokens": 1, "rewards": 0}
    with pytest.raises(ValueError):
        trl_steps([[row], [row, row]], prompt_tokens=19)


def test_a_step_without_a_pair_trains_on_nothing():
    row = {
        "time/step_s": 0.3,
        "time/generate_wait_s": 0.1,
        "time/reward_s": 0.0,
        "time/sync_s": 0.02,
        "reward/mean": 0.0,
        "tokens/generated": 100,
    }
    (step,) = rlstack_steps([row], rollouts_per_step=128)
    assert step.trained_tokens == 0
    assert step.sync_s == 0.02


def test_the_time_to_a_reward_is_that_of_the_first_window_that_has_it():
    steps = rising(1.0, 0.0, 0.0, 0.5, 0.7, 0.9)
    assert time_to_reward(steps, goal=0.6, window=2) == pytest.approx(5 * 0.5)
    assert time_to_reward(steps, goal=0.9, window=2) is None
    assert time_to_reward(steps, goal=0.0, window=4) == pytest.approx(4 * 0.5)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.integers(1, 10))
def test_a_higher_goal_never_comes_sooner(rewards, window):
    times = [time_to_reward(rising(*rewards), goal=g / 10, window=window) for g in range(11)]
    assert times == sorted(times, key=lambda t: float("inf") if t is None else t)


def test_a_goal_that_one_run_misses_has_no_median_time():
    assert median_or_none([1.0, 3.0, None]) is None
    assert median_or_none([1.0, 3.0]) == 2.0


def test_the_summary_leaves_the_first_steps_out():
    slow = replace(STEP, step_s=9.0)
    result = summary([[slow, STEP, STEP], [slow, STEP, STEP]], skipped=1, goal=0.2, window=2)
    assert result["step_s_mean"] == result["step_s_median"] == 0.5
    assert result["rest_s"] == pytest.approx(0.25)
    assert result["generated_tokens_per_s"] == pytest.approx(6000)
    assert result["time_to_reward_s"] == pytest.approx(9.5)


def test_a_run_that_was_disturbed_does_not_move_the_mean():
    quiet, disturbed = [STEP] * 4, [replace(STEP, step_s=5.0)] * 4
    result = summary([quiet, disturbed, quiet], skipped=0, goal=0.2, window=2)
    assert result["step_s_mean"] == 0.5


def test_ratios_are_to_the_fastest_trl_case_of_the_objective():
    def row(stack, objective, step_s):
        return {"stack": stack, "objective": objective, "step_s_mean": step_s, "step_s_median": step_s}

    rows = with_ratios([row("trl", "dpo", 0.6), row("trl", "dpo", 0.5), row("rlstack", "dpo", 0.25)])
    assert [r["ratio_mean"] for r in rows] == pytest.approx([1.2, 1.0, 0.5])
    (alone,) = with_ratios([row("rlstack", "grpo", 0.5)])
    assert alone["ratio_mean"] is alone["ratio_median"] is None
