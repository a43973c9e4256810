"""The cases of `make cases`, held against their goals; about a minute."""

from __future__ import annotations

import dataclasses

import pytest

from tests.cases.__main__ import run
from tests.cases.case import Case, files_at_hand, read_cases
from tests.cases.goals import Result, judged, missed_goals


@pytest.fixture(scope="module")
def results() -> list[Result]:
    return run(files_at_hand())


def test_all_goals_are_met(results: list[Result]) -> None:
    wrong = [f"{case.id}: {case.expected}, got {got}" for case, got, right in results if not right]
    assert list(missed_goals(results)) == [], wrong


def test_ids_are_given_once() -> None:
    ids = [case.id for file in files_at_hand() for case in read_cases(file)]
    assert len(ids) == len(set(ids))


def verdict(reward: float, *, own: bool = False, guard: bool = False) -> Case:
    how = "rlstack score FILE --reward math --out OUT"
    return Case(
        id=f"m{reward}",
        kind="math/x",
        input={"how": how},
        expected={"rewards": [reward]},
        guard=guard,
        own=own,
    )


def test_a_goal_is_missed_above_its_share() -> None:
    right = [judged(verdict(1.0), {"rewards": [1.0]})] * 93
    wrong = [judged(verdict(1.0), {"rewards": [0.0]})] * 7
    assert list(missed_goals([*right, *wrong])) == []
    (goal,) = missed_goals([*right, *wrong, wrong[0]])
    assert goal == "8 of 101 right answers are not given 1, and 7% is the most"
    (goal,) = missed_goals([judged(verdict(0.0), {"rewards": [None]})])
    assert goal == "1 of 1 wrong answers are not given 0, and 3% is the most"


def test_own_cases_and_guards_have_to_be_right_one_by_one() -> None:
    assert "1 of the project's own cases" in next(missed_goals([judged(verdict(1.0, own=True), {})]))
    many = [judged(verdict(1.0), {"rewards": [1.0]})] * 99
    (goal,) = missed_goals([*many, judged(verdict(1.0, guard=True), {"rewards": [0.0]})])
    assert goal == "1 guards are lost: m1.0"


def test_a_part_of_an_outcome_is_compared_with_its_type_and_texts_are_looked_for() -> None:
    case = dataclasses.replace(verdict(1.0), expected={"value": 1})
    assert judged(case, {"value": 1, "more": 2}).right
    assert not judged(case, {"value": True}).right
    assert not judged(case, {"value": 1, "crash": "KeyError"}).right
    refused = dataclasses.replace(verdict(1.0), expected={"error": ["run.name", "text"]})
    assert judged(refused, {"error": "run.name = 3: text is accepted"}).right
    assert not judged(refused, {"error": "run.name = 3"}).right
    assert not judged(refused, {"value": 1}).right
