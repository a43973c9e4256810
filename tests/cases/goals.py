"""Which shares of the cases have to be right, and which cases need not be, with the reason."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from typing import NamedTuple

from tests.cases.case import Case, Outcome
from tests.cases.runners import is_verdict
from tests.cases.verdict import is_right

# Of the shared file's math verdicts.
MAX_MISSED_ONES = 0.07  # share of right answers that are not given 1
MAX_FALSE_ONES = 0.03  # share of wrong answers that are given 1
# Kinds, or ids, of shared cases: as fnmatch has them.
EXCEPTIONS: dict[str, str] = {
    "template/template-options": "in words only; tests/unit/test_problems.py has the setting",
}


class Result(NamedTuple):
    case: Case
    got: Outcome
    right: bool

    @property
    def lost_guard(self) -> bool:
        """If it is a guard that is not right."""
        return self.case.guard and not self.right


def judged(case: Case, got: Outcome) -> Result:
    """The case with its outcome and if that is right; what an exception says needs no rule."""
    try:
        return Result(case, got, is_right(case, got))
    except KeyError:
        return Result(case, got | {"crash": f"there is no rule for {case.kind} in verdict.py"}, False)


def exception(case: Case) -> str | None:
    """The reason why a shared case need not be right; None for all others."""
    patterns = [pattern for pattern in EXCEPTIONS if fnmatch(case.kind, pattern) or fnmatch(case.id, pattern)]
    return EXCEPTIONS[patterns[0]] if patterns and not case.own else None


def missed_goals(results: Sequence[Result]) -> Iterator[str]:
    """The goals that are not met, one line each."""
    own = [result for result in results if result.case.own and not result.right]
    if own:
        yield f"{len(own)} of the project's own cases are not right: {_ids(own)}"
    if lost := [result for result in results if result.lost_guard]:
        yield f"{len(lost)} guards are lost: {_ids(lost)}"
    shared = [result for result in results if not result.case.own]
    yield from _missed_verdicts([result for result in shared if is_verdict(result.case)])
    others = [result for result in shared if not is_verdict(result.case)]
    if wrong := [result for result in others if not result.right and exception(result.case) is None]:
        yield f"{len(wrong)} shared cases other than verdicts are not right: {_ids(wrong)}"


def _missed_verdicts(verdicts: Sequence[Result]) -> Iterator[str]:
    goals = (
        (1.0, MAX_MISSED_ONES, "right answers are not given 1"),
        (0.0, MAX_FALSE_ONES, "wrong answers are not given 0"),
    )
    for reward, most, what in goals:
        of_kind = [each for each in verdicts if each.case.expected == {"rewards": [reward]}]
        wrong = [each for each in of_kind if not each.right]
        if len(wrong) > most * len(of_kind):
            yield f"{len(wrong)} of {len(of_kind)} {what}, and {most:.0%} is the most"


def _ids(results: Sequence[Result]) -> str:
    return ", ".join(result.case.id for result in results)
