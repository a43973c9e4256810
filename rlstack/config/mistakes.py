"""What is wrong with settings that a user wrote, in words, with the path of each setting.

OmegaConf decides what fits a field. It stops at the first error and forgets the path inside a list, so the
walk is here: one problem per line, all of them at once.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from dataclasses import MISSING, fields
from enum import Enum
from functools import cache
from types import NoneType, UnionType
from typing import Any, get_args, get_origin

from omegaconf import DictConfig, OmegaConf

from rlstack.config.references import is_reference
from rlstack.config.schema import RunConfig
from rlstack.config.secrets import secret_in
from rlstack.config.values import hints_of, is_section
from rlstack.errors import ConfigError

WORDS = {int: "an integer", float: "a number", bool: "true or false", str: "text", NoneType: "null"}
UNWRITABLE = re.compile(r"[\0\ud800-\udfff]")
LISTS = {int: "a list of integers", float: "a list of numbers", str: "a list of texts"}
EXAMPLES = {list[int]: "[2,2]", list[float]: "[0.5,1]", list[str]: "[a,b]", dict[str, str]: "{NAME: VALUE}"}


def find_mistakes(
    settings: object, section: type = RunConfig, path: str = "", *, unresolved: bool = False
) -> Iterator[str]:
    """Keys that `section` does not have and values that do not fit, as one line each.

    Args:
        unresolved: texts with a reference may still become anything.
    """
    if not isinstance(settings, dict):
        keys = ", ".join(field.name for field in fields(section))
        yield f"{path or 'the file'} = {settings!r}: a section is accepted, with some of the keys {keys}"
        return
    types = hints_of(section)
    for key, value in settings.items():
        name = f"{path}.{key}" if path else str(key)
        if key not in types:
            yield _unknown(str(key), path, types)
        elif (isinstance(value, str) or not _has_sections(types[key])) and (problem := _unwritable(value)):
            yield f"{name}{problem}"
        elif unresolved and is_reference(value):
            continue
        elif is_section(types[key]):
            yield from find_mistakes(value, types[key], name, unresolved=unresolved)
        elif is_section(item := _item(types[key])):
            yield from _mistakes_in_list(value, item, name, unresolved=unresolved)
        elif not _fits(section, key, value if unresolved else _literal(value)):
            wanted = f"{accepted(types[key])} is accepted{_example(types[key])}"
            yield f"{name} = {value!r}: {wanted}{_default(section, key)}"


def _mistakes_in_list(values: object, item: type, path: str, *, unresolved: bool) -> Iterator[str]:
    if not isinstance(values, list):
        yield f"{path} = {values!r}: a list is accepted; write each entry with a dash"
        return
    for i, value in enumerate(values):
        if not (unresolved and is_reference(value)):
            yield from find_mistakes(value, item, f"{path}[{i}]", unresolved=unresolved)


def refuse_wrong_types(config: object) -> None:
    """Raise ConfigError for settings made in Python whose values are not of the schema's types."""
    if found := list(find_wrong_types(config)):
        raise ConfigError("\n".join(found))


def find_wrong_types(value: object, hint: Any = RunConfig, path: str = "") -> Iterator[str]:
    """Values of settings made in Python that are not of the schema's types, as one line each."""
    if is_section(hint):
        if not isinstance(value, hint):
            yield f"{path or 'the configuration'} = {value!r}: {accepted(hint)} is accepted"
            return
        for name, of in hints_of(hint).items():
            yield from find_wrong_types(getattr(value, name), of, f"{path}.{name}" if path else name)
    elif is_section(_item(hint)) and isinstance(value, list):
        for i, each in enumerate(value):
            yield from find_wrong_types(each, _item(hint), f"{path}[{i}]")
    elif problem := _unwritable(value):
        yield f"{path}{problem}"
    elif not any(_is_of(value, option) for option in _options(hint)):
        yield f"{path} = {value!r}: {accepted(hint)} is accepted{_example(hint)}"


def accepted(hint: Any) -> str:
    """What fits the type, in words."""
    if isinstance(hint, UnionType):
        return " or ".join(accepted(option) for option in get_args(hint))
    if get_origin(hint) is list:
        return LISTS.get(_item(hint), "a list")
    if get_origin(hint) is dict:
        return "a mapping of texts" if get_args(hint)[1] is str else "a mapping"
    if is_section(hint):
        return f"a section {hint.__name__}"
    if isinstance(hint, type) and issubclass(hint, Enum):
        return " | ".join(member.value for member in hint)
    return WORDS.get(hint, "another value")


def _example(hint: Any) -> str:
    return next((f", for example {EXAMPLES[each]}" for each in _options(hint) if each in EXAMPLES), "")


def _options(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if isinstance(hint, UnionType) else (hint,)


def _item(hint: Any) -> Any:
    """The type of a list's entries; None for another type."""
    return get_args(hint)[0] if get_origin(hint) is list else None


def _is_of(value: object, hint: Any) -> bool:
    """If `value` is of a type that is neither a section nor a union."""
    if get_origin(hint) is list:
        return isinstance(value, list) and all(_is_of(each, _item(hint)) for each in value)
    if get_origin(hint) is dict:
        parts = zip(*value.items(), strict=True) if isinstance(value, dict) and value else ()
        of = zip(parts, get_args(hint), strict=False)
        return isinstance(value, dict) and all(_is_of(each, part) for some, part in of for each in some)
    if hint is Any:
        return True
    if hint in (int, float):
        return type(value) is int or (hint is float and isinstance(value, float))
    return isinstance(value, hint)


def _fits(section: type, key: str, value: object) -> bool:
    try:
        OmegaConf.update(_nodes(section), key, value, merge=False)
    except Exception:  # OmegaConf lets through whatever a value's conversion raises
        return False
    return True


def _literal(value: Any) -> Any:
    """`value` with texts of which OmegaConf takes none for a reference; only their type is looked at."""
    if isinstance(value, dict):
        return {key: _literal(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_literal(item) for item in value]
    return value.replace("${", "$") if isinstance(value, str) else value


@cache
def _nodes(section: type) -> DictConfig:
    return OmegaConf.structured(section)


def _has_sections(hint: Any) -> bool:
    return is_section(hint) or is_section(_item(hint))


def _unwritable(value: object) -> str | None:
    """The complaint about a value with a text that the run's files cannot hold, or must not; None: none."""
    for text in _texts(value):
        if UNWRITABLE.search(text):
            return f" = {value!r}: text without NUL and halves of surrogate pairs is accepted"
        if (name := secret_in(text)) is not None:
            return (
                f": holds the secret of the environment variable {name}, and settings are kept in the run's "
                "files and sent to loggers; leave it out, for packages find it in the environment"
            )
    return None


def _texts(value: object) -> Iterator[str]:
    """Every text in `value`, keys included."""
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, str):
        yield value


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
    sections = hints_of(RunConfig)
    return [f"{name}.{key}" for name, section in sections.items() if key in hints_of(section)]


def _default(section: type, key: str) -> str:
    default = next(field.default for field in fields(section) if field.name == key)
    if default is MISSING or default == "???":
        return ""
    text = default.value if isinstance(default, Enum) else default
    return f" (default: {'null' if text is None else text})"
