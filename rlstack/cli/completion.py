"""What a shell offers for a KEY=VALUE: each setting with its default, or with each word that it accepts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from typing import Any, get_type_hints


def complete_setting(incomplete: str) -> list[str]:
    """The settings that begin with `incomplete`, as on the command line; entries of lists are left out.

    The value is there because shells end the word that they complete.
    """
    from rlstack.config.schema import RunConfig

    return [offer for offer in _offers(RunConfig, "") if offer.startswith(incomplete)]


def _offers(section: type, prefix: str) -> Iterator[str]:
    hints = get_type_hints(section)
    for field in fields(section):
        path, hint = f"{prefix}{field.name}", hints[field.name]
        if is_dataclass(hint) and isinstance(hint, type):
            yield from _offers(hint, f"{path}.")
        else:
            yield from (f"{path}={value}" for value in _values(field.default))


def _values(default: Any) -> Iterator[str]:
    """The words that a setting with this default accepts, the default first; or the default alone."""
    if default is MISSING or default == "???":
        yield ""
    elif isinstance(default, Enum):
        yield from sorted(
            (member.value for member in type(default)), key=lambda value: value != default.value
        )
    elif isinstance(default, bool):
        yield from (json.dumps(default), json.dumps(not default))
    else:
        yield default if isinstance(default, str) else json.dumps(default)
