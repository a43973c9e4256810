"""Run the cases that need no engine: python -m tests.cases [FILE...]

Without FILE, the project's own (tests/cases/*.jsonl) and the shared ones where they are at hand: in
../shared/cases beside the checkout, or in RLSTACK_SHARED_CASES. Exit status 1 if a goal is missed.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.cases.case import Case, files_at_hand, read_cases
from tests.cases.goals import Result, exception, judged, missed_goals
from tests.cases.runners import is_verdict, outcomes

SHOWN_CHARS = 160  # of what was expected, and of what came


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.cases", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="cases, JSONL")
    parser.add_argument("--kind", default="", metavar="TEXT", help="only kinds with this in their name")
    arguments = parser.parse_args()
    results = run(arguments.files or files_at_hand(), kind=arguments.kind)
    print_results(results)
    goals = list(missed_goals(results))
    print(*(f"missed: {goal}" for goal in goals), sep="\n")
    return 1 if goals else 0


def run(files: Sequence[Path], *, kind: str = "") -> list[Result]:
    """The results of all cases in `files`, those with `kind` in their kind's name."""
    cases = [case for file in files for case in read_cases(file) if kind in case.kind]
    return [judged(case, got) for case, got in outcomes(cases)]


def print_results(results: Sequence[Result]) -> None:
    """What is not right, case by case, and the counts by kind."""
    console = Console(highlight=False, markup=False, soft_wrap=True)
    for case, got, right in results:
        if right and exception(case):
            console.print(f"{case.id} {case.kind}: right, and need not be an exception")
        elif not right and (reason := exception(case)):
            console.print(f"{case.id} {case.kind}: an exception: {reason}")
        elif not right:
            console.print(f"{case.id} {case.kind}: {_given(case)}expected {_short(case.expected)}")
            console.print(f"    got {_short(got)}")
    console.print(_table(results))


def _table(results: Sequence[Result]) -> Table:
    by_kind: dict[str, list[Result]] = defaultdict(list)
    for result in results:
        by_kind[result.case.kind + (" (own)" if result.case.own else "")].append(result)
    table = Table("kind", "right", "of", "guards lost", box=None)
    for kind, some in [*sorted(by_kind.items()), ("all", list(results))]:
        counts = sum(each.right for each in some), len(some), sum(each.lost_guard for each in some)
        table.add_row(kind, *map(str, counts))
    return table


def _given(case: Case) -> str:
    """The gold answer and the answers of a verdict, for they are short."""
    if not is_verdict(case):
        return ""
    row = case.input["row"]
    return f"{_short(row['answer'])} against {_short(', '.join(row['responses']))}: "


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= SHOWN_CHARS else f"{text[: SHOWN_CHARS - 3]}..."


if __name__ == "__main__":
    sys.exit(main())
