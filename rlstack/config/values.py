"""Values as they were written, by the type that the schema has for them.

YAML makes a number of 007, false of no and a date of 2024-01-01. Where the schema says text, the value is the
text that stands there; everything else is what YAML makes of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, TypeGuard, get_args, get_origin, get_type_hints

import yaml

from rlstack.config.schema import RunConfig

TAG = "tag:yaml.org,2002:"
MERGE = f"{TAG}merge"
PLAIN = [
    TAG + name for name in ("bool", "int", "float", "timestamp", "merge", "str")
]  # of text without quotes
NULL_WORDS = ("", "~", "null", "Null", "NULL")
Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

hints_of = cache(get_type_hints)


def type_at(names: Sequence[str]) -> Any:
    """The schema's type of the setting that `names` lead to; None if there is no such setting.

    Args:
        names: sections, keys and indices of lists: ("data", "tasks", "0", "path").
    """
    hint: Any = RunConfig
    for name in names:
        hint = _part(hint, name)
    return hint


def is_section(hint: Any) -> TypeGuard[type]:
    """If `hint` is one of the schema's dataclasses."""
    return isinstance(hint, type) and is_dataclass(hint)


def is_text(hint: Any) -> bool:
    """If the schema says text there, or null."""
    return _not_null(hint) is str


def read_value(text: str, hint: Any) -> Any:
    """The value of type `hint` that `text` is on the command line or in an environment variable.

    A text is what was typed; in quotes it is what YAML makes of the quotes. Null stays null.

    Raises:
        Exception: `text` has to be YAML and is not; PyYAML lets through whatever a value's conversion raises.
    """
    hint = _not_null(hint)
    if hint is str:
        return None if text.strip() in NULL_WORDS else _unquoted(text)
    return as_written(yaml.safe_load(text), yaml.compose(text, Loader=Loader), hint)


def as_written(value: Any, node: yaml.Node | None, hint: Any) -> Any:
    """`value` with the texts that stand in `node`, which it was made of, where `hint` says text."""
    hint = _not_null(hint)
    if isinstance(value, dict) and isinstance(node, yaml.MappingNode):
        nodes = children(node)
        if get_origin(hint) is dict and get_args(hint)[1] is str:
            return {key: as_written(_made(each), each, str) for key, each in nodes.items()}
        return {
            key: as_written(item, nodes.get(str(key)), _part(hint, str(key))) for key, item in value.items()
        }
    if isinstance(value, list) and isinstance(node, yaml.SequenceNode):
        return [
            as_written(item, each, _part(hint, "0")) for item, each in zip(value, node.value, strict=True)
        ]
    if hint is str and isinstance(node, yaml.ScalarNode):
        return node.value if not node.style and node.tag in PLAIN else value
    if isinstance(value, str) and str in get_args(hint):
        return _number_or_text(value, hint)
    return value


def children(node: yaml.MappingNode) -> dict[str, yaml.Node]:
    """The nodes of a mapping's values by the text of their keys, those that are merged into it included."""
    merged: dict[str, yaml.Node] = {}
    own: dict[str, yaml.Node] = {}
    for key, child in node.value:
        if key.tag == MERGE:
            sources = child.value if isinstance(child, yaml.SequenceNode) else [child]
            for source in reversed(sources):  # of several, the first one counts
                merged |= children(source)
        elif isinstance(key, yaml.ScalarNode):
            own[key.value] = child
    return merged | own


def _part(hint: Any, name: str) -> Any:
    """The type of what `name` is of a section, a list or a mapping of type `hint`."""
    hint = _not_null(hint)
    if is_section(hint):
        return hints_of(hint).get(name)
    of = get_args(hint)
    return of[-1] if get_origin(hint) in (list, dict) else None


def _not_null(hint: Any) -> Any:
    """The one type that `hint` accepts beside null; `hint` itself where there are more, or none."""
    others = [each for each in get_args(hint) if each is not NoneType]
    return others[0] if isinstance(hint, UnionType) and len(others) == 1 else hint


def _number_or_text(text: str, hint: Any) -> Any:
    """What YAML makes of `text` where `hint` accepts that beside text: a number or null, even in quotes."""
    value = yaml.safe_load(text)
    return value if type(value) in get_args(hint) else text


def _unquoted(text: str) -> str:
    if text[0] not in "'\"":
        return text
    try:
        node = yaml.compose(text, Loader=Loader)
    except yaml.YAMLError:
        return text
    whole = isinstance(node, yaml.ScalarNode) and node.end_mark.index == len(text.rstrip())
    return node.value if whole and node.style else text


def _made(node: yaml.Node) -> Any:
    return yaml.safe_load(yaml.serialize(node))
