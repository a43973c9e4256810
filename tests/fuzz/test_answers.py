"""Whatever a model answers: a box or none, at once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rlstack.data.boxed import MARKER, MAX_ANSWER_CHARS, boxed_answer
from rlstack.rewards.math_text import normalise
from tests.fuzz.hostile import texts

PARTS = [
    MARKER,
    r"\boxed{",
    "{",
    "}",
    "\\",
    r"\{",
    r"\}",
    "$",
    "11/12",
    r"\frac",
    "\u202e",
    "１２",
    "\0",
    "\n",
]
answers = st.lists(st.sampled_from(PARTS) | texts, max_size=30).map("".join)


@given(text=answers)
def test_an_answer_has_a_box_or_none(text: str) -> None:
    found = boxed_answer(text)
    if found is not None:
        assert found == found.strip() != ""
        assert r"\boxed" in text and found in text and len(found) <= MAX_ANSWER_CHARS


@given(text=answers, inner=st.text("ab{}").filter(lambda s: balanced(s) and s.strip()))
def test_the_last_box_is_found_whatever_comes_before_it(text: str, inner: str) -> None:
    assert boxed_answer(f"{text} {MARKER} $\\boxed{{{inner}}}$.") == inner.strip()


def balanced(text: str) -> bool:
    depth = 0
    for character in text:
        depth += (character == "{") - (character == "}")
        if depth < 0:
            return False
    return depth == 0
