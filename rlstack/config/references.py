"""What `${...}` in settings refers to: other settings, and the environment, as OmegaConf has it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, get_args

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rlstack.config.schema import RunConfig
from rlstack.config.values import NULL_WORDS, is_text, read_value, type_at
from rlstack.errors import ConfigError

REMEDY = (
    "give a setting as ${section.key}, an environment variable as ${oc.env:NAME} or ${oc.env:NAME,default}, "
    "or write \\${ for the text itself"
)
UNSET = "???"  # OmegaConf's mark of a setting without a default
Settings = dict[str, Any]
Names = tuple[Any, ...]  # the keys and indices that lead to a setting


def is_reference(value: object) -> bool:
    """If `value` is a text with a `${` in it, an escaped one included."""
    return isinstance(value, str) and "${" in value


def has_references(value: Any) -> bool:
    """If there is one anywhere in `value`."""
    return any(map(is_reference, texts_of(value)))


def texts_of(value: Any) -> Iterator[str]:
    """Every text in `value`, in its lists and sections; the keys of these left out."""
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from texts_of(item)
    elif isinstance(value, str):
        yield value


def escaped(value: Any) -> Any:
    """`value` written so that all of its texts are read as they are, without a reference."""
    if isinstance(value, dict):
        return {key: escaped(item) for key, item in value.items()}
    if isinstance(value, list):
        return [escaped(item) for item in value]
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", value) if isinstance(value, str) else value


def nodes_of(settings: Settings) -> DictConfig:
    """`settings` over all defaults, as OmegaConf reads it: what references are looked up in.

    Raises:
        ConfigError: a reference is not well formed.
    """
    try:
        return OmegaConf.merge(_defaults(), settings)  # type: ignore[return-value]
    except OmegaConfBaseException as error:
        raise ConfigError(unreadable(error)) from None


def unreadable(error: OmegaConfBaseException) -> str:
    """The setting that OmegaConf cannot take, and why."""
    return f"{error.full_key} cannot be read ({_reason(error)}); {REMEDY}"


def resolved(settings: Settings) -> Settings:
    """`settings` with what each reference stands for; in place of another type, its text is read as YAML.

    Raises:
        ConfigError: references that lead nowhere or are not well formed, one line each.
    """
    problems: list[str] = []
    values: Settings = _resolved(settings, nodes_of(settings), (), problems)
    if problems:
        raise ConfigError("\n".join(problems))
    return values


def _resolved(raw: Any, node: Any, names: Names, problems: list[str]) -> Any:
    """What `raw` stands for, which is `node` of all settings and lies at `names`."""
    if isinstance(raw, dict):
        return {key: _item(item, node, (*names, key), problems) for key, item in raw.items()}
    return [_item(item, node, (*names, i), problems) for i, item in enumerate(raw)]


def _item(raw: Any, parent: Any, names: Names, problems: list[str]) -> Any:
    if isinstance(raw, dict | list):
        return _resolved(raw, parent[names[-1]], names, problems)
    if not is_reference(raw):
        return raw
    try:
        value = parent[names[-1]]
        if OmegaConf.is_config(value):
            value = OmegaConf.to_container(value, resolve=True)
    except (OmegaConfBaseException, RecursionError) as error:
        problems.append(f"{joined(names)} = {raw}: {_reason(error)}; {REMEDY}")
        return raw
    return _typed(value, type_at([str(name) for name in names])) if isinstance(value, str) else value


def _typed(text: str, hint: Any) -> Any:
    """`text` as a value of the setting's type; what does not fit stays text, and is refused as such."""
    if text in NULL_WORDS:
        return None
    if is_text(hint):
        return text
    try:
        value = read_value(text, hint)
        return text if str in get_args(hint) and type(value) not in get_args(hint) else value
    except Exception:  # PyYAML lets through whatever a value's conversion raises
        return text


def joined(names: Sequence[Any]) -> str:
    """The setting's path, as it is written on the command line: data.tasks[0].path."""
    return "".join(f"[{name}]" if isinstance(name, int) else f".{name}" for name in names).removeprefix(".")


@cache
def _defaults() -> DictConfig:
    plain: Any = OmegaConf.to_container(OmegaConf.structured(RunConfig), enum_to_str=True)
    return OmegaConf.create(plain)


def _reason(error: Exception) -> str:
    """OmegaConf's first line, without the exception that a resolver raised."""
    line = (str(error).splitlines() or [type(error).__name__])[0]
    return line.partition("raised while resolving interpolation: ")[2].strip('"') or line
