"""Cases of settings: from a file, the command line and the environment to one value."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Any

from rlstack.config.load import dump_config, load_config
from rlstack.config.schema import RunConfig
from rlstack.errors import ConfigError
from tests.cases.case import ROOT, Case, Outcome

QUICKSTART = ROOT / "configs" / "quickstart.yaml"


def overridden(case: Case) -> Outcome:
    """The quickstart with one setting of the command line: "value" is what the setting became.

    `setting` names another one to look at.
    """
    override = case.input["override"]
    with _environment(case.input.get("env", {})):
        try:
            config = load_config(QUICKSTART, [override])
        except ConfigError as error:
            return {"error": str(error)}
    return {"value": value_of(config, case.input.get("setting", override.partition("=")[0]))}


def written(case: Case) -> Outcome:
    """A file in a folder of its own, loaded from elsewhere; then what dump_config writes, in a run's folder.

    "value" and "again" are `setting` in both (by default the first task's path), relative to the file's
    folder where it is a path in there; "same" says that all settings are.
    """
    setting = case.input.get("setting", "data.tasks[0].path")
    with _environment(case.input.get("env", {})), tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        files = {"run.yaml": case.input["file"], **case.input.get("files", {})}
        for file, text in files.items():
            text = text.replace("configs/quickstart.yaml", str(QUICKSTART))
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_text(text, encoding="utf-8")
        again = folder / "runs" / "x" / "config.yaml"
        again.parent.mkdir(parents=True)
        try:
            first = load_config(folder / "run.yaml", case.input.get("overrides", ()))
            again.write_text(dump_config(first), encoding="utf-8")
            second = load_config(again)
        except ConfigError as error:
            return {"error": str(error).replace(f"{folder}/", "")}
        values = [_inside(value_of(config, setting), folder) for config in (first, second)]
    return {"value": values[0], "again": values[1], "same": first == second}


def value_of(config: RunConfig, setting: str) -> Any:
    """The value at "section.list[0].key"; KeyError, IndexError or AttributeError where there is none."""
    value: Any = config
    for part in re.findall(r"\w+", setting):
        if isinstance(value, list):
            value = value[int(part)]
        else:
            value = value[part] if isinstance(value, dict) else getattr(value, part)
    return value.value if isinstance(value, Enum) else value


def _inside(value: Any, folder: Path) -> Any:
    return value.removeprefix(f"{folder}/") if isinstance(value, str) else value


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    before = os.environ.copy()
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
