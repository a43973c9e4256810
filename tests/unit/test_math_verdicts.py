"""The math verifier's verdicts: what is one answer in two notations, and what is another answer."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from pathlib import Path

import pytest

from rlstack.rewards.math_compare import is_equal
from rlstack.rewards.math_text import MAX_CHARS, compact, normalise

CASES = Path(__file__).parents[1] / "cases" / "math.jsonl"


def test_every_kind_has_right_answers_and_wrong_ones_in_the_cases_that_are_held_to_goals() -> None:
    cases = [json.loads(line) for line in CASES.read_text(encoding="utf-8").split("\n") if line]
    assert min(Counter((case["kind"], *case["expected"]["rewards"]) for case in cases).values()) >= 3


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"12\,345.", "12345"),
        (r"1,\,2", "1, 2"),
        ("1,23", "1,23"),
        (r"\textbf{(B)}\ 12", "(B) 12"),
        ("10 − 2√5", r"10 - 2\sqrt{5}"),
        (r"0.1\overline{6}", r"\frac{1}{6}"),
        ("2 1/4", r"\frac{9}{4}"),
        (r"\text{about } 30", "30"),
        (r"30 \text{ and } 40", "30 and 40"),
        (r"2.5 \text{ million}", "2500000"),
        ("1e-05", "0.00001"),
        (r"\begin{cases} x=1 \\ y=2 \end{cases}", "x=1, y=2"),
        (r"\begin{cases} x & x>0 \\ -x & x<0 \end{cases}", r"\begin{cases} x & x>0 \\ -x & x<0 \end{cases}"),
        (r"x^{10}", r"x^{10}"),
        (r"\,", ""),
        ("12\u200d", "12\u200d"),
        ("١٢", "١٢"),
        ("1" * (MAX_CHARS + 1) + ".", "1" * (MAX_CHARS + 1) + "."),
    ],
)
def test_one_notation(text: str, expected: str) -> None:
    assert normalise(text) == expected


def test_what_is_normalised_stays() -> None:
    """So that it does not matter how often a text has been through."""
    lines = CASES.read_text(encoding="utf-8").split("\n")
    golds = {json.loads(line)["input"]["row"]["answer"] for line in lines if line}
    assert [gold for gold in golds if normalise(normalise(gold)) != normalise(gold)] == []


def test_spaces_between_numbers_and_between_words_are_kept() -> None:
    assert compact("a + b") == "a+b"
    assert compact("1 2") == "1 2"
    assert compact(r"\pi r") == r"\pi r"


def test_one_comparison_that_raises_does_not_end_the_others() -> None:
    assert is_equal("12:00", "12:00")
    with pytest.raises(ValueError, match="nan"):
        is_equal(r"\frac{0}{0}", "5")
    assert is_equal(r"\frac{0}{0}", r"\frac{0}{0}")


def test_a_gold_answer_that_says_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        is_equal(r"\,", "5")


DISTINCT = (
    "(1,3)",
    "[1,3]",
    "(1,3]",
    "[1,3)",
    "x<1",
    r"x \le 1",
    "x>1",
    r"x \ne 1",
    r"\mathbb{R}",
    r"\emptyset",
)


@pytest.mark.parametrize(("gold", "answer"), list(itertools.permutations(DISTINCT, 2)))
def test_no_two_of_these_sets_are_equal(gold: str, answer: str) -> None:
    assert not is_equal(gold, answer)
