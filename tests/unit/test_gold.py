"""What a gold answer says, in the forms that public datasets have it."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlstack.data.gold import accepted_answers, read_gold, text_or_number

SHARED = Path(__file__).parents[3] / "shared" / "data"

READ = [
    # What follows the last ####, as in GSM8K.
    ("#### 42", "42"),
    ("Each pack has 6 cans, so 7 packs have 7 * 6 = <<7*6=42>>42 cans.\n#### 42", "42"),
    ("4 boxes of 250 make <<4*250=1000>>1000 pens.\n#### 1,000\n", "1,000"),
    ("#### First\nadd.\n#### 8\n(checked)", "8"),
    ("It costs $3.\n#### $3.50", "$3.50"),
    ("#### Solution\nSo it is $\\boxed{5}$, not 6.", "5"),
    ("We get \\boxed{7}.\n#### 42", "42"),
    # The last box.
    (r"First $\boxed{1}$, then $x = \boxed{\frac{1}{2}}$. Done.", r"\frac{1}{2}"),
    (r"The final answer is $\boxed{9 (apples)}$. I hope it is correct.", "9"),
    (r"\boxed{\text{(B) } 12}", r"\text{(B) } 12"),
    # Prose of fixed forms.
    ("The answer is 42.", "42"),
    ("the answer is: 42", "42"),
    ("**Answer:** 42", "42"),
    ("Therefore the result is 19.", "19"),
    ("So the final answer is (B).", "(B)"),
    ("The correct answer is B.", "B"),
    ("The answer to the problem is $x^2$.", "x^2"),
    ("4 + 3 = 7. The answer is 7.", "7"),
    ("The answer is 7. We add 3 and 4.", "7"),
    ("The answer is 3.5 meters.", "3.5 meters"),
    ("Final Answer: The final answer is $5$. I hope it is correct.", "5"),
    ("Add them.\nThe answer is\n\\[\n5\n\\]\nas was to be shown.", "5"),
    ("Answer: 7", "7"),
    ("A: 7", "7"),
    ("Q: 3 + 4?\nA: 7", "7"),
    ("Ans: -2", "-2"),
    ("42 is the answer.", "42"),
    ("Therefore, x = 5.", "x = 5"),
    ("Hence 12.", "12"),
    ("The value of $x$ is $5$.", "5"),
    ("The sum of the roots is -12.", "-12"),
    ("<think>7 or 8?</think><answer> 8 </answer>", "8"),
    # A note in parentheses, as in ASDiv.
    ("9 (apples)", "9"),
    ("640 (pages of a book)", "640"),
    ("1,200 (dollars)", "1,200"),
    ("1/2 (pizza)", "1/2"),
    ("2 1/2 (cups)", "2 1/2"),
    ("12.5 (cm)", "12.5"),
    # Delimiters of formulas.
    ("$5$", "5"),
    ("$5$.", "5"),
    ("$$x+1$$", "x+1"),
    (r"\(x^2\)", "x^2"),
    (r"\[5\]", "5"),
    ("**42**", "42"),
    # Numbers.
    ("1e+16", "10000000000000000"),
    ("1e-05", "0.00001"),
    ("3e-07", "0.0000003"),
    ("-2.5E6", "-2500000"),
    ("6e1234", r"6 \times 10^{1234}"),
    (1e16, "10000000000000000"),
    (1e-05, "0.00001"),
    (5.0, "5.0"),
    (-0.25, "-0.25"),
    (10**30, "1" + "0" * 30),
    (Decimal("1E-7"), "0.0000001"),
    # Lists of one, mappings, and texts of them.
    (["5/6"], "5/6"),
    ([["5/6"]], "5/6"),
    (["#### 7"], "7"),
    ('["17"]', "17"),
    ("['17']", "17"),
    ("[17]", "17"),
    ('"17"', "17"),
    ('{"ground_truth": "17"}', "17"),
    ({"answer": None, "solution": r"So \boxed{17}."}, "17"),
    # The lines of a matrix are one expression.
    ("\\begin{pmatrix} 1 \\\\\n 2 \\end{pmatrix}", r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}"),
]  # fmt: skip

AS_IT_IS = [
    *("42", "-3", "1/2", "0.50", "5.0", "007", "1,000", "12:00", "3:2", "25%", r"50\%", r"\$5", "$5"),
    *("f(x)", "2(x+1)", "2 (x+1)", "2 (x)", "3 (xy)", "(1,2)", "(0, 5)", "[0, 1)", "[1, 2]", "{1, 2, 3}"),
    *(
        "x (mod 7)",
        "3 (mod 7)",
        "3 (mod n)",
        r"x \equiv 3 (mod 7)",
        "5 (sin x)",
        "110 (base two)",
        "9 (or ten)",
    ),
    *(r"\text{Tuesday}", r"\text{No solution}", "east", "Yes", "No solution", "the set of all primes", "Na"),
    *("B", "(B)", "B) 12", r"\text{(B) }12", "B: 12", "2:30 (p.m.)", r"2:30 \text{ p.m.}"),
    *("x = 5", "x=2 or x=3", r"x \in [-2,7]", r"\{1, 2\}", "$a$ and $b$", r"\frac{9}{4} (9/4)", "y = e^x"),
    *(r"\text{The answer is } 5", r"\text{None}", "DNE", "undefined", r"\infty", "infinity", "2e", "e5"),
]


@pytest.mark.parametrize(("value", "expected"), READ, ids=[repr(value)[:40] for value, _ in READ])
def test_the_answer_is_found_in_what_stands_around_it(value: object, expected: str) -> None:
    assert read_gold(value) == expected


@pytest.mark.parametrize("text", AS_IT_IS)
def test_an_expression_stays_as_it_is(text: str) -> None:
    assert read_gold(text) == text
    assert read_gold(f"  {text}\n") == text


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (["1/2", "0.5"], ("1/2", "0.5")),
        ([1, 2.5], ("1", "2.5")),
        (["#### 4", "$5$", "4"], ("4", "5")),
        ('["a \\"b\\"", "é"]', ('a "b"', "é")),
        ("['17', '18']", ("17", "18")),
        ({"answers": ["1", "2"]}, ("1", "2")),
        ([{"answer": "3"}, "4"], ("3", "4")),
        ("42", ("42",)),
        ('["open', ('["open',)),
    ],
)
def test_a_list_stands_for_any_of_its_answers(value: object, expected: tuple[str, ...]) -> None:
    gold = read_gold(value)
    assert accepted_answers(gold) == expected
    assert read_gold(gold) == gold


@pytest.mark.parametrize(
    "value",
    [
        *(None, True, float("nan"), float("inf"), -float("inf"), Decimal("NaN"), "", " \n", "####", "$ $"),
        *("None", "none", "null", "NaN", "nan", "N/A", "NA", "<NA>", "inf", "-inf", "NaT", "#### None"),
        *([], [None], ["nan"], {}, {"a": 1}, [[[[["5"]]]]], b"5", ["", "5"]),
    ],
)
def test_what_is_no_value_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r".+"):
        read_gold(value)


@given(st.text() | st.floats() | st.integers() | st.lists(st.text() | st.floats(), max_size=3))
def test_any_value_is_read_once_and_for_all_or_refused(value: object) -> None:
    try:
        gold = read_gold(value)
    except ValueError:
        return
    assert gold.strip() and all(answer.strip() for answer in accepted_answers(gold))


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_keeps_its_value_without_a_power_of_ten(number: float) -> None:
    text = read_gold(number)
    assert float(text) == number and "e" not in text.lower()


def test_a_plug_in_gets_a_text_as_it_is() -> None:
    assert [text_or_number(value) for value in ("#### 4", 1e16, 7, None, True, float("nan"), ["a"])] == [
        *("#### 4", "10000000000000000", "7", None, None, None, None)
    ]


@pytest.mark.parametrize("name", ["math500", "amc23", "gsm8k_test", "math_rollouts_60x8"])
def test_real_gold_answers_stay_as_they_are(name: str) -> None:
    path = SHARED / f"{name}.jsonl"
    if not path.exists():
        pytest.skip("the real data are not at hand")
    for line in path.read_text(encoding="utf-8").splitlines():
        answer = json.loads(line)["answer"]
        assert read_gold(answer) == str(answer).strip() or float(answer) == float(read_gold(answer)), answer
