from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlstack.credit.advantages import weigh_rollouts
from rlstack.data.records import Outcome, Prompt, Rollout, RolloutGroup, Score, ScoredGroup


def advantages(rewards: list[float | None]) -> dict[int, float]:
    """Advantages by the index of the rollout."""
    rollouts = tuple(
        Rollout(token_ids=(i,), generator_logprobs=(0.0,), text="", finished=True, version=0)
        for i in range(len(rewards))
    )
    prompt = Prompt(task="a", row=0, problem="", token_ids=(1,))
    scores = tuple(
        Score(reward=reward, outcome=Outcome.error if reward is None else Outcome.ok) for reward in rewards
    )
    scored = ScoredGroup(group=RolloutGroup(step=0, prompt=prompt, rollouts=rollouts), scores=scores)
    return {example.rollout.token_ids[0]: example.advantage for example in weigh_rollouts(scored)}


def test_the_advantage_is_the_reward_less_the_mean_of_the_group() -> None:
    assert advantages([1.0, 0.0, 0.0, 0.0]) == {0: 0.75, 1: -0.25, 2: -0.25, 3: -0.25}


def test_rollouts_without_a_reward_count_neither_in_the_mean_nor_in_the_group() -> None:
    assert advantages([1.0, None, 0.0]) == {0: 0.5, 2: -0.5}
    assert advantages([None]) == {}


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=8))
def test_advantages_sum_to_zero(rewards: list[float]) -> None:
    assert sum(advantages(list(rewards)).values()) == pytest.approx(0, abs=1e-10)


@given(st.floats(-100, 100), st.integers(1, 20))
def test_equal_rewards_have_advantages_of_exactly_zero(reward: float, n: int) -> None:
    assert set(advantages([reward] * n).values()) == {0.0}
