"""The names of `rlstack` stay, come from where they are, and cost nothing until they are used."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import rlstack
from tests.heavy import HEAVY

ROOT = Path(__file__).parents[2]
STABLE = {
    *("run", "load_config", "RunConfig", "ConfigError", "read_record", "RunRecord"),
    *("Session", "assign", "Prompt", "Rollout", "RolloutGroup", "Score", "ScoredGroup"),
    *("Loss", "LossInputs", "LossOutput", "Ratio", "dpo_margins", "entropy_mean", "rollout_sums"),
}


def test_the_stable_names_are_there() -> None:
    assert set(rlstack.__all__) == STABLE
    assert set(rlstack.__all__) <= set(dir(rlstack))
    for name in rlstack.__all__:
        assert getattr(rlstack, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = rlstack.trian


def test_what_type_checkers_see_is_what_there_is() -> None:
    tree = ast.parse((ROOT / "rlstack" / "__init__.py").read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {
        node.module: tuple(alias.name for alias in node.names)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
    }
    assert seen == rlstack._MODULES


def test_importing_the_package_imports_nothing_heavy() -> None:
    light = (*HEAVY, "omegaconf", "numpy", "yaml", "typer", "rich")
    code = f"import sys, rlstack; sys.exit(str(found) if (found := set({light}) & set(sys.modules)) else 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "path", sorted((ROOT / "docs" / "examples").glob("*.py")), ids=lambda path: path.name
)
def test_an_example_is_short(path: Path) -> None:
    lines = [line for line in path.read_text().splitlines() if line.strip()]
    assert len(lines) <= 30


def test_the_page_shows_the_examples_as_they_are() -> None:
    page = (ROOT / "docs" / "python-api.md").read_text()
    shown = [block.partition("```")[0] for block in page.split("```python\n")[1:]]
    files = sorted((ROOT / "docs" / "examples").glob("*.py"))
    assert sorted(shown) == sorted(path.read_text() for path in files)


def test_the_page_lists_every_name() -> None:
    page = (ROOT / "docs" / "python-api.md").read_text()
    assert [name for name in rlstack.__all__ if f"`{name}" not in page] == []
