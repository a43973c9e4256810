"""Fields of a row by their names, also those of mappings inside it: `reward_model.ground_truth`. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

ABSENT = object()  # in place of a field that is not there


def field_value(record: Mapping[str, Any], name: str) -> Any:
    """The value of the field `name`, or ABSENT.

    A key that is spelt just so comes first. Otherwise a dot leads into a mapping, and a dot and a number into
    a list, either of which may be written as a text of JSON.
    """
    if name in record:
        return record[name]
    value: Any = record
    for part in name.split("."):
        if isinstance(value, str):
            value = _decoded(value)
        if isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        elif isinstance(value, Mapping) and part in value:
            value = value[part]
        else:
            return ABSENT
    return value


def columns_of(names: Iterable[str]) -> set[str]:
    """The columns that may hold the fields of these names."""
    return {column for name in names for column in (name, name.partition(".")[0])}


def _decoded(text: str) -> Any:
    try:
        return json.loads(text) if text.lstrip()[:1] in ("{", "[") else None
    except (ValueError, RecursionError):
        return None
