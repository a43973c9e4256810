"""The reference pages say what the code says, and miss nothing that a run leaves."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import pytest

from rlstack.config import alarms, schema
from rlstack.config.ranges import RANGES
from rlstack.config.schema import RunConfig
from rlstack.telemetry.metrics import METRICS
from tests.played_run import make_run

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
from reference_docs import FOLDER, pages
from reference_markdown import table
from source_comments import comments_of

CELLS = re.compile(r"(?<!\\)\|")


def rows(text: str) -> list[list[str]]:
    """The cells of all tables' rows, without their heads."""
    lines = [line for line in text.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in CELLS.split(line)[1:-1]] for line in lines]


@pytest.mark.parametrize("name", pages())
def test_a_page_is_what_the_code_makes_of_it(name: str) -> None:
    path = FOLDER / name
    assert path.read_text(encoding="utf-8") == pages()[name], "run python tools/reference_docs.py"


@pytest.mark.parametrize("name", pages())
def test_every_row_of_a_table_has_as_many_cells_and_says_something(name: str) -> None:
    for cells in rows(pages()[name]):
        assert len(cells) in (2, 3, 4, 5)
        assert cells[-1], cells


def test_every_metric_is_there_once() -> None:
    assert sorted(cells[0] for cells in rows(pages()["metrics.md"])) == sorted(
        f"`{name}`" for name in METRICS
    )


def test_every_name_that_a_run_logs_is_there(tmp_path: Path) -> None:
    shown = [cells[0].strip("`") for cells in rows(pages()["metrics.md"])]
    patterns = [re.sub(r"\\{\w+\\}", ".+", re.escape(name)) for name in shown]
    lines = (make_run(tmp_path, gpus=True) / "metrics.jsonl").read_text().splitlines()
    logged = {name for line in lines for name in json.loads(line)}
    assert len(logged) > 20
    assert [name for name in logged if not any(re.fullmatch(each, name) for each in patterns)] == []


def settings_of(section: type, path: str = "") -> list[str]:
    found: list[str] = []
    for name, hint in get_type_hints(section).items():
        item: Any = get_args(hint)[0] if get_origin(hint) is list else hint
        inside = f"{path}{name}" if item is hint else f"{path}{name}[i]"
        found += settings_of(item, f"{inside}.") if is_dataclass(item) else [f"{path}{name}"]
    return found


def test_every_setting_is_there_once_with_its_range() -> None:
    shown = {cells[0].strip("`"): cells for cells in rows(pages()["settings.md"])}
    every = [name for name in settings_of(RunConfig) if not name.startswith("evaluation.tasks")]
    assert sorted(shown) == sorted(every)
    for name, accepted in RANGES.items():
        assert str(accepted) in shown[name][2]
    assert shown["policy.model"][1] == "must be given"
    assert shown["telemetry.wandb"][1:3] == ["`null`", "text; null"]


def test_comments_are_read_beside_what_they_are_about() -> None:
    assert comments_of(schema.Run)["dir"] == "relative to the working directory"
    assert comments_of(alarms.EntropyCollapse)["window"].startswith("steps that a mean is over")
    assert comments_of(schema.Placement)["split"] == "policy and engines have GPUs of their own"
    assert comments_of(schema.Objective)["clip_ratio_high"].startswith("and at 1 + this")


@pytest.mark.parametrize(
    ("cell", "escaped"), [("a | b", "a \\| b"), ("A_*, B_*", "A_\\*, B_\\*"), ("`2 ** n`", "`2 ** n`")]
)
def test_a_cell_means_what_it_says(cell: str, escaped: str) -> None:
    assert table(["a"], [[cell]]).splitlines()[-1] == f"| {escaped} |"
