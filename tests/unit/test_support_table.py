"""The tables of where what has been run claim no more than the files of results."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
import support_table
from gpu_check.profiles import PROFILES
from support_table import NOT_YET, Row, cell, newest, page, pages, table


def result(*outcomes: tuple[str, str], date: str = "2026-12-02", **changes: Any) -> dict[str, Any]:
    rows = [{"part": name, "outcome": outcome, "shows": f"the {name}"} for name, outcome in outcomes]
    whole = {"dry_run": False, "machine": {"gpus": ["NVIDIA H200"]}, "date": date, "rows": rows}
    return whole | changes


@pytest.mark.parametrize("path", support_table.TABLES, ids=lambda path: path.name)
def test_a_page_has_the_table_that_the_files_make(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == pages()[path], "run python tools/support_table.py"


def test_without_files_no_cell_of_a_gpu_claims_anything() -> None:
    for head, rows in support_table.TABLES.values():
        for line in table(head, rows, {}).splitlines()[2:]:
            cells = [text.strip() for text in line.split("|")[1:-1]]
            assert len(cells) == len(head) and set(cells[2:]) <= {NOT_YET, ""}, line


def test_every_part_of_a_cell_is_one_of_a_profile() -> None:
    known = {part.name for profile in PROFILES.values() for part in profile()}
    every = [row for _, rows in support_table.TABLES.values() for row in rows]
    assert {name for row in every for column in row.gpu_columns for name in column or ()} == known


def test_a_cell_names_what_passed_what_failed_and_what_is_missing() -> None:
    found = newest([result(("a", "passed"), ("b", "timed out"), ("c", "skipped"), ("d", "not run"))])
    assert cell(("a",), found) == "run: the a (NVIDIA H200, 2026-12-02)"
    assert cell(("a", "b", "c", "d"), found) == (
        "run: the a (NVIDIA H200, 2026-12-02). failed: the b (NVIDIA H200, 2026-12-02). "
        "2 of 4 checks not yet run"
    )
    assert cell(("c", "d"), found) == cell((), found) == NOT_YET
    assert cell(None, found) == ""


@pytest.mark.parametrize("changes", [{"dry_run": True}, {"machine": {"gpus": []}}])
def test_what_ran_without_a_gpu_does_not_count(changes: dict[str, Any]) -> None:
    assert newest([result(("a", "passed"), **changes)]) == {}


def test_the_newest_outcome_counts_and_of_one_day_the_worse() -> None:
    old, new = result(("a", "passed"), date="2026-12-01"), result(("a", "failed"))
    assert newest([new, old])["a"].outcome == newest([old, new])["a"].outcome == "failed"
    again = result(("a", "passed"))
    assert newest([again, new])["a"].outcome == newest([new, again])["a"].outcome == "failed"


def test_a_page_keeps_the_rest() -> None:
    marked = f"before\n\n{support_table.BEGIN}\n\nold\n\n{support_table.END}\n\nafter\n"
    made = table(("", "CPU", "GPU"), [Row("it", "run", (("a",),))], newest([result(("a", "passed"))]))
    text = page(marked, made)
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    assert "| it | run | run: the a (NVIDIA H200, 2026-12-02) |" in text
    assert page(text, made) == text
