from __future__ import annotations

from statistics import stdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlstack.credit.advantages import weigh_rollouts
from tests.scored import scored_group


def advantages(rewards: list[float | None], *, std_normalised: bool = False) -> dict[int, float]:
    """Advantages by the index of the rollout."""
    examples = weigh_rollouts(scored_group(rewards), std_normalised=std_normalised)
    return {int(example.rollouts[0].token_ids[0]): example.advantages[0] for example in examples}


def test_the_advantage_is_the_reward_less_the_mean_of_the_group() -> None:
    assert advantages([1.0, 0.0, 0.0, 0.0]) == {0: 0.75, 1: -0.25, 2: -0.25, 3: -0.25}


def test_rollouts_without_a_reward_count_neither_in_the_mean_nor_in_the_group() -> None:
    assert advantages([1.0, None, 0.0]) == {0: 0.5, 2: -0.5}
    assert advantages([None]) == {}


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=8), st.booleans())
def test_advantages_sum_to_zero(rewards: list[float], std_normalised: bool) -> None:
    total = sum(advantages(list(rewards), std_normalised=std_normalised).values())
    assert total == pytest.approx(0, abs=1e-6)


@given(st.floats(-100, 100), st.integers(1, 20), st.booleans())
def test_equal_rewards_have_advantages_of_exactly_zero(reward: float, n: int, std_normalised: bool) -> None:
    assert set(advantages([reward] * n, std_normalised=std_normalised).values()) == {0.0}


def test_normalised_advantages_have_a_standard_deviation_of_one() -> None:
    found = advantages([3.0, None, -1.0, 0.5, 0.5], std_normalised=True)
    assert stdev(found.values()) == pytest.approx(1, abs=1e-5)
    plain = advantages([3.0, None, -1.0, 0.5, 0.5])
    assert {i: found[i] / found[0] for i in found} == pytest.approx({i: plain[i] / plain[0] for i in plain})


def test_rewards_equal_up_to_rounding_are_not_blown_up() -> None:
    found = advantages([0.1 + 0.2, 0.3, 0.3], std_normalised=True)
    assert max(map(abs, found.values())) < 1e-6
