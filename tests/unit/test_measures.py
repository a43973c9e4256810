"""Measures of sampled answers against closed forms and enumerations."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import combinations, permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlstack.evaluation.measures import ks_for, majority_vote, over_seeds, pass_at_k


def test_mean_and_standard_error_over_seeds() -> None:
    mean, stderr = over_seeds([[1.0, 0.0], [1.0, 1.0]])  # seed accuracies 1 and 1/2
    assert mean == pytest.approx(0.75)
    assert stderr == pytest.approx(math.sqrt(0.125) / math.sqrt(2))


def test_a_single_seed_has_no_standard_error() -> None:
    assert over_seeds([[1.0], [0.0]]) == (0.5, None)


@given(st.integers(1, 9).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n))))
def test_pass_at_k_is_the_share_of_the_draws_with_a_correct_answer(case: tuple[int, int, int]) -> None:
    num_answers, num_correct, k = case
    draws = list(combinations(range(num_answers), k))
    share = Fraction(sum(min(draw) < num_correct for draw in draws), len(draws))
    assert pass_at_k(num_answers, num_correct, k) == pytest.approx(float(share), abs=1e-15)


def test_pass_at_k_is_exact_where_the_product_form_loses_digits() -> None:
    assert pass_at_k(1000, 1, 1) == pytest.approx(1e-3, rel=1e-13)
    assert pass_at_k(1000, 3, 500) == pytest.approx(
        float(1 - Fraction(500 * 499 * 498, 1000 * 999 * 998)), rel=1e-15
    )
    assert pass_at_k(50, 0, 50) == 0
    assert pass_at_k(50, 1, 50) == 1


@pytest.mark.parametrize(
    ("n", "ks"), [(1, []), (2, [2]), (4, [2, 4]), (6, [2, 4, 6]), (50, [2, 4, 8, 16, 32, 50])]
)
def test_pass_at_k_is_told_for_powers_of_two_and_n(n: int, ks: list[int]) -> None:
    assert ks_for(n) == ks


@pytest.mark.parametrize(
    ("votes", "rewards", "expected"),
    [
        ("aab", [0, 0, 1], 0),
        ("abb", [0, 1, 1], 1),
        ("ab", [1, 0], 1 / 2),  # a tie: what a fair draw gets
        ("aabbc", [1, 1, 0, 0, 0], 1 / 2),
        ("abc", [0, 0, 1], 1 / 3),
        ([None, None, "a"], [0, 0, 1], 1),  # who gives no answer does not vote
        ([None, None], [0, 0], 0),
        ("aa", [1, 0], 1 / 2),  # one of the two was not verified in time
    ],
)
def test_the_majoritys_reward(votes: list[str | None], rewards: list[float], expected: float) -> None:
    assert majority_vote(votes, rewards) == pytest.approx(expected)


@given(st.lists(st.tuples(st.sampled_from([None, "a", "b"]), st.booleans()), max_size=5))
def test_the_order_of_the_answers_does_not_count(answers: list[tuple[str | None, bool]]) -> None:
    results = {
        round(majority_vote([vote for vote, _ in order], [float(correct) for _, correct in order]), 12)
        for order in permutations(answers)
    }
    assert len(results) == 1
