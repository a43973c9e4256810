"""docs/reference/settings.md, from rlstack/config/schema.py.

Types and defaults are from the classes, meanings from the comments beside them.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import Enum, StrEnum
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from reference_markdown import code, page, table
from source_comments import comments_of

from rlstack.config.ranges import RANGES, Range
from rlstack.config.references import UNSET
from rlstack.config.schema import RunConfig
from rlstack.config.validate_rewards import MODEL_RANGES

WORDS = {int: "integer", float: "number", bool: "true, false", str: "text", type(None): "null"}
RANGES_BY_PATH = {**RANGES, **{f"reward.models[i].{name}": range for name, range in MODEL_RANGES.items()}}
INTRODUCTION = """Each can stand in a YAML file, under its section, or on the command line after the file:

```bash
rlstack train configs/quickstart.yaml schedule.sync_interval=5 policy.fp8.margin=1
rlstack train configs/quickstart.yaml 'data.tasks[0].weight=2.0'
```

A file may hold only what differs from another one, which it names as `base: FILE`. Paths in a file are
relative to the file, paths on the command line to the working directory; `~` is the home folder. `null`
means never, or not set. A setting that does not exist, has the wrong type or cannot work together with
another one is refused before any process starts. Names end in their unit: `_s` seconds, `_gib` and `_mib`
2^30 and 2^20 bytes, `_tokens` tokens, `_fraction` a share.

Where the type is text, the value is what was typed: `run.name=007`, `no`, `1.10` and `2024-01-01` are no
numbers, truth values or dates. On the command line that goes for the whole of it, `a #b` and `x: y` included;
in a file, such texts need quotes. Quotes mean in both what they mean in YAML.

`${section.key}` stands for another setting, wherever that was given, `${oc.env:NAME}` and
`${oc.env:NAME,default}` for an environment variable. One that holds a secret, as its name says (HF_TOKEN,
WANDB_API_KEY, DB_PASSWORD), is refused, and so is its value wherever it stands, for settings are written to
the run's files and sent to loggers. References are looked up in all settings together; then paths are made
absolute, from the folder of the file with the reference, and types are checked, so that
`schedule.sync_interval=${oc.env:S}` is a number or null. `\\${` is the text `${`. In config.yaml of a run's
folder, input paths are absolute and references have been looked up."""


def settings_page() -> str:
    """The whole page."""
    shown: dict[type, str] = {}
    blocks = [INTRODUCTION]
    for name, section in get_type_hints(RunConfig).items():
        blocks += _section(name, section, level=2, shown=shown)
    return page("Settings", "rlstack/config/schema.py", *blocks)


def _section(path: str, section: type, *, level: int, shown: dict[type, str]) -> Iterator[str]:
    """Heading, table and words of a section, and the sections within it. shown: where each is so far."""
    yield f"{'#' * level} {path}"
    if section in shown:
        yield f"The same settings as of [{shown[section]}](#{re.sub('[^a-z_]', '', shown[section])})."
        return
    shown[section] = path
    if doc := _own_doc(section):
        yield doc
    types, comments = get_type_hints(section), comments_of(section)
    plain = [field for field in fields(section) if _section_in(types[field.name]) is None]
    if plain:
        head = ["setting", "default", "accepted", "meaning"]
        yield table(head, [_row(path, field, types[field.name], comments[field.name]) for field in plain])
    yield from filter(None, (_words(f"{path}.{field.name}", types[field.name]) for field in plain))
    for name, hint in types.items():
        if inside := _section_in(hint):
            below = f"{path}.{name}" if is_dataclass(hint) else f"{path}.{name}[i]"
            yield from _section(below, inside, level=level + 1, shown=shown)


def _section_in(hint: Any) -> type | None:
    """The section that a field of this type is, or holds a list of."""
    item = get_args(hint)[0] if get_origin(hint) is list else hint
    return item if isinstance(item, type) and is_dataclass(item) else None


def _own_doc(section: type) -> str:
    """Its docstring, where it has one of its own: dataclasses are given one that repeats the fields."""
    doc = inspect.getdoc(section) or ""
    return "" if doc.startswith(f"{section.__name__}(") or section.__doc__ is None else " ".join(doc.split())


def _row(path: str, field: Field[Any], hint: Any, comment: str) -> list[str]:
    setting = f"{path}.{field.name}"
    return [code(setting), _default(field), _accepted(setting, hint), comment]


def _default(field: Field[Any]) -> str:
    made = field.default if field.default_factory is MISSING else field.default_factory()
    return "must be given" if made == UNSET else code(_yaml(made))


def _yaml(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value.value if isinstance(value, Enum) else value)


def _accepted(setting: str, hint: Any) -> str:
    options = get_args(hint) if isinstance(hint, UnionType) else (hint,)
    kinds = [_kind(option, RANGES_BY_PATH.get(setting)) for option in options]
    if int in options and str in options:
        kinds[options.index(str)] = "a word, see meaning"
    return "; ".join(kinds)


def _kind(option: Any, accepted: Range | None) -> str:
    if get_origin(option) is list:
        return f"list of {WORDS[get_args(option)[0]]}s"
    if get_origin(option) is dict:
        return "names with text" if get_args(option)[1] is str else "names with values"
    if issubclass(option, Enum):
        return ", ".join(code(word.value) for word in option)
    return f"{WORDS[option]}, {accepted}" if accepted and option in (int, float) else WORDS[option]


def _words(setting: str, hint: Any) -> str | None:
    """What each word of an enumeration means, where that is said; None otherwise."""
    options = get_args(hint) if isinstance(hint, UnionType) else (hint,)
    for option in options:
        if isinstance(option, type) and issubclass(option, Enum):
            comments = comments_of(option)
            lines = [f"- `{each.value}`: {comments[each.name]}" for each in option if comments[each.name]]
            doc = _own_doc(option) if option.__doc__ != StrEnum.__doc__ else ""
            return "\n".join([f"`{setting}`{f': {doc}' if doc else ':'}", "", *lines]) if lines else None
    return None
