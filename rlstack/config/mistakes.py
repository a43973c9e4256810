"""What is wrong with settings that a user wrote, in words, with the path of each setting.

OmegaConf decides what fits a field. It stops at the first error and forgets the path inside a list, so the
walk is here: one problem per line, all of them at once.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rlstack.config.schema import RunConfig

WORDS = {int: "an integer", float: "a number", bool: "true or false", str: "text", type(None): "null"}


def find_mistakes(settings: object, section: type = RunConfig, path: str = "") -> Iterator[str]:
    """Keys that `section` does not have and values that do not fit, as one line each."""
    if not isinstance(settings, dict):
        keys = ", ".join(field.name for field in fields(section))
        yield f"{path or 'the file'} = {settings!r}: a section is accepted, with some of the keys {keys}"
        return
    types = get_type_hints(section)
    for key, value in settings.items():
        name = f"{path}.{key}" if path else str(key)
        if key not in types:
            yield _unknown(str(key), path, types)
        elif is_dataclass(types[key]):
            yield from find_mistakes(value, types[key], name)
        elif get_origin(types[key]) is list:
            yield from _mistakes_in_list(value, get_args(types[key])[0], name)
        elif not _fits(section, key, value):
            yield f"{name} = {value!r}: {_accepted(types[key])} is accepted{_default(section, key)}"


def _mistakes_in_list(values: object, item: type, path: str) -> Iterator[str]:
    if not isinstance(values, list):
        yield f"{path} = {values!r}: a list is accepted; write each entry with a dash"
        return
    for i, value in enumerate(values):
        yield from find_mistakes(value, item, f"{path}[{i}]")


def _fits(section: type, key: str, value: object) -> bool:
    try:
        OmegaConf.update(OmegaConf.structured(section), key, value, merge=False)
    except OmegaConfBaseException:
        return False
    return True


def _unknown(key: str, path: str, types: dict[str, Any]) -> str:
    close = difflib.get_close_matches(key, types, n=1)
    suggestions = [f"{path}.{close[0]}" if path else close[0]] if close else _settings_called(key)
    if suggestions:
        remedy = f"did you mean {' or '.join(suggestions)}?"
    else:
        remedy = f"{path or 'a configuration'} has {', '.join(types)}"
    return f"{path + '.' if path else ''}{key}: there is no such setting; {remedy}"


def _settings_called(key: str) -> list[str]:
    """The settings of this name in any section."""
    sections = get_type_hints(RunConfig)
    return [f"{name}.{key}" for name, section in sections.items() if key in get_type_hints(section)]


def _accepted(hint: Any) -> str:
    if isinstance(hint, UnionType):
        return " or ".join(_accepted(option) for option in get_args(hint))
    if issubclass(hint, Enum):
        return " | ".join(member.value for member in hint)
    return WORDS[hint]


def _default(section: type, key: str) -> str:
    default = next(field.default for field in fields(section) if field.name == key)
    if default is MISSING or default == "???":
        return ""
    text = default.value if isinstance(default, Enum) else default
    return f" (default: {'null' if text is None else text})"
