"""Every promise of SECURITY.md names tests that hold it, and these are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def promises() -> list[str]:
    """The rows of the tables below the heading, without their heads."""
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    section = text.split("\n## What is promised\n")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("|")]
    heads = {n for n, row in enumerate(rows) if n + 1 < len(rows) and set(rows[n + 1]) <= set("|-")}
    return [row for n, row in enumerate(rows) if n not in heads and not set(row) <= set("|-")]


def faults(row: str) -> list[str]:
    """What is wrong with the last cell of a row: it names no test, or one that is not there."""
    named = TEST.findall(row.rstrip("| ").rpartition("|")[2])
    missing = [f"{path}::{name}" for path, name in named if name not in functions_of(ROOT / path)]
    return missing if named else ["no test is named"]


def functions_of(path: Path) -> set[str]:
    if not path.is_file():
        return set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("row", promises())
def test_a_promise_is_held_by_tests(row: str) -> None:
    assert faults(row) == []


def test_there_are_promises() -> None:
    assert len(promises()) > 20


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("`tests/unit/test_security_promises.py::test_there_are_promises`", []),
        ("", ["no test is named"]),
        ("see the source", ["no test is named"]),
        ("`tests/unit/test_nowhere.py::test_it`", ["tests/unit/test_nowhere.py::test_it"]),
        (
            "`tests/unit/test_security_promises.py::test_nothing`",
            ["tests/unit/test_security_promises.py::test_nothing"],
        ),
    ],
)
def test_a_row_is_judged(cell: str, expected: list[str]) -> None:
    assert faults(f"| a stranger | nothing happens | {cell} |") == expected
