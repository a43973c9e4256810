"""The section of a run's report with its settings, and what it ran on."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from rlstack.config.load import dump_config
from rlstack.config.references import UNSET
from rlstack.config.schema import RunConfig
from rlstack.telemetry.html_page import Section, code, folded, table, text
from rlstack.telemetry.run_record import RunRecord


def settings_section(run: RunRecord) -> Section | None:
    """The settings that are not the defaults, all of them folded away, and machine and versions of a run
    that has ended."""
    defaults = flat(yaml.safe_load(dump_config(RunConfig())))
    defaults = {key: "must be given" if UNSET in value else value for key, value in defaults.items()}
    given = flat(run.settings)
    changed = [
        [key, value, defaults.get(key, "")] for key, value in given.items() if value != defaults.get(key)
    ]
    blocks = [
        text("What differs from the defaults:"),
        table(["setting", "value", "default"], changed, words=[1, 2]),
        folded("All settings", [code(yaml.safe_dump(run.settings, sort_keys=False, allow_unicode=True))]),
    ]
    if run.summary is not None:
        blocks.append(folded("Machine and versions", [table(["", ""], _environment(run.summary), words=[1])]))
    return Section("Settings", blocks)


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Each setting under its path, as JSON; lists as they are."""
    values: dict[str, str] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            values |= flat(value, f"{prefix}{key}.")
        else:
            values[f"{prefix}{key}"] = json.dumps(value, ensure_ascii=False)
    return values


def _environment(summary: Mapping[str, Any]) -> Iterator[list[str]]:
    for part in ("hardware", "versions"):
        for name, value in summary[part].items():
            yield [name, ", ".join(value) or "none" if isinstance(value, list) else str(value)]
