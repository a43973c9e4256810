"""The roads of docs/architecture.md: each function is there and calls the next one."""

from __future__ import annotations

import ast
import re
from itertools import groupby, pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STEP = re.compile(r"(\d+)\. `([\w.]+):([\w.]+)`")
# Functions that call a method by the name that the function before them was given.
BY_NAME = {"Host.call", "Host.stream", "Engine._call"}
GIVERS = {"Role.start", "Role.stream"}  # which stand between that function and Host


def roads() -> list[list[tuple[str, str]]]:
    """(module, function) of each step; a road begins with number 1."""
    lines = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").splitlines()
    steps = [found.groups() for line in lines if (found := STEP.fullmatch(line))]
    starts = [i for i, (number, *_) in enumerate(steps) if number == "1"]
    ends = [*starts[1:], len(steps)]
    return [[(module, name) for _, module, name in steps[i:j]] for i, j in zip(starts, ends, strict=True)]


def function(module: str, name: str) -> ast.AST:
    path = ROOT.joinpath(*module.split(".")).with_suffix(".py")
    node: ast.AST = ast.parse(path.read_text(encoding="utf-8"))
    for part in name.split("."):
        found = [child for child in ast.iter_child_nodes(node) if getattr(child, "name", None) == part]
        assert found, f"{module} has no {name}"
        node = found[-1]
    return node


def named(node: ast.AST) -> set[str]:
    """Identifiers and strings in a function."""
    names = {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}
    names |= {each.attr for each in ast.walk(node) if isinstance(each, ast.Attribute)}
    return names | {
        each.value
        for each in ast.walk(node)
        if isinstance(each, ast.Constant) and isinstance(each.value, str)
    }


def test_there_are_the_three_roads() -> None:
    last = [road[-1][1] for road in roads()]
    assert last == ["take_step", "run_continuously", "WorkerPool.map", "land_direct"]


@pytest.mark.parametrize("road", roads(), ids=lambda road: road[-1][1])
def test_each_function_calls_the_next(road: list[tuple[str, str]]) -> None:
    for i, (caller, called) in enumerate(pairwise(road)):
        function(*called)
        j = i
        if caller[1] in BY_NAME:
            j -= 1
            while road[j][1] in GIVERS:
                j -= 1
        name = called[1].rpartition(".")[2]
        names = named(function(*road[j]))
        assert name in names or name.removeprefix("rlstack_") in names, f"{road[j][1]} does not call {name}"


def test_no_road_goes_through_a_function_twice() -> None:
    for road in roads():
        assert all(len(list(same)) == 1 for _, same in groupby(sorted(road)))
