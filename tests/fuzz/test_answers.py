"""Whatever a model answers: a box or none, at once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rlstack.data.boxed import MARKER, MAX_ANSWER_CHARS, boxed_answer
from rlstack.rewards.math_compare import COMPOSED, KINDS
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


NOTATIONS = [
    *(r"\text{", r"\frac", r"\left(", r"\right)", r"\begin{cases}", r"\end{cases}", r"\\", r"\,", r"\dot"),
    *(r"\overline{", r"\sqrt", r"\sin", r"^\circ", r"\color{red}", r"\mid", r"\cup", r"\langle", "√", "三"),
    *("million", "apples", "and", "(B)", "_2", ":30", "e5", "12", "1,234", "1/2", "...", "(3)", "[3]", "."),
    *(" ", "{", "}", "-", "&", "=", "<", "x"),
]
expressions = st.lists(st.sampled_from(NOTATIONS) | texts, max_size=40).map("".join)
repeated = st.tuples(st.lists(st.sampled_from(NOTATIONS), min_size=1, max_size=3), st.integers(1, 700)).map(
    lambda pair: ("".join(pair[0]) * pair[1])[:MAX_ANSWER_CHARS]
)


@given(text=expressions | repeated)
def test_any_text_has_one_notation(text: str) -> None:
    notation = normalise(text)
    assert notation == notation.strip()
    assert len(notation) <= 20 * len(text) + 400


@given(gold=expressions | repeated, answer=expressions | repeated)
def test_any_two_texts_are_compared(gold: str, answer: str) -> None:
    gold, answer = normalise(gold), normalise(answer)
    for kind in KINDS:
        assert kind(gold, answer) in (True, False, None)
    for kind in COMPOSED:
        assert kind(gold, answer, str.__eq__) in (True, False, None)
