"""From a file and the command line to a RunConfig, and back to YAML.

A file may name another one as its `base` and then holds only what differs; lists replace lists. Paths in a
file are relative to that file, paths on the command line to the working directory, so that a configuration
works from any directory. References, ${...}, are looked up in all settings together, before paths are made
absolute and types are checked.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import GrammarParseError, OmegaConfBaseException

from rlstack.config.input_paths import anchor, anchor_references
from rlstack.config.mistakes import find_mistakes
from rlstack.config.references import Settings, escaped, has_references, resolved, texts_of, unreadable
from rlstack.config.schema import RunConfig
from rlstack.config.values import Loader, as_written, children, read_value, type_at
from rlstack.errors import ConfigError

MAX_STORED_BYTES = 2**20  # of the settings in a run's folder
KEY = re.compile(r"[A-Za-z_]\w*(\.\w+|\[\d+\])*")


def load_config(path: Path | str | None, overrides: Sequence[str] = ()) -> RunConfig:
    """The settings of the file at `path`, with each of `overrides` ("section.key=value") put over them.

    Without a path, the defaults with `overrides` over them.

    Raises ConfigError for a file that cannot be read, for settings that do not exist or do not fit their
    type, for references that lead nowhere, and for mandatory settings that are not given.
    """
    settings = {} if path is None else _read(Path(path), ())
    for override in overrides:
        _apply(settings, override)
    if overrides:
        _refuse_mistakes(settings, "command line")  # the file's own have been refused
        anchor(settings, Path.cwd())
    return _config(settings, path)


def load_stored(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """The settings that a run has left in its folder, which may be anybody's: they lead nowhere else.

    No other file is read as `base`, and references are not looked up; `dump_config` writes neither.
    `overrides` are put over them, as load_config does.

    Raises ConfigError for those, for what is no plain file, and as load_config does.
    """
    settings = _parse(path, read=stored_text)
    if "base" in settings or any(map(_is_looked_up, texts_of(settings))):
        raise ConfigError(
            f"{path}: has `base` or a reference, ${{...}}, which no run writes, and which nobody looks up in "
            "its folder; write the values themselves"
        )
    _refuse_mistakes(settings, path)
    anchor(settings, path.parent)
    for override in overrides:
        _apply(settings, override)
    return _config(settings, path)


def stored_text(path: Path) -> str:
    """The YAML that a run has left at `path`: a file that is what it seems to be.

    Raises OSError, ValueError or yaml.YAMLError if it is not: no plain file, too long, not UTF-8, not YAML,
    or with aliases, *NAME, by which a short file can stand for a huge one.
    """
    if path.exists() and not (path.is_file() and path.stat().st_size <= MAX_STORED_BYTES):
        raise ValueError(f"a plain file of at most {MAX_STORED_BYTES} bytes is accepted")
    text = path.read_text(encoding="utf-8")
    if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=Loader)):
        raise ValueError("it has an alias, *NAME; write the value itself")
    return text


def _config(settings: Settings, path: Path | str | None) -> RunConfig:
    """As load_config, of settings that have been merged; `path` is for messages."""
    if has_references(settings):
        settings = resolved(anchor_references(settings))
        _refuse_mistakes(settings)
    config = OmegaConf.merge(OmegaConf.structured(RunConfig), escaped(settings))
    if unset := sorted(OmegaConf.missing_keys(config)):
        remedy = f"give it in {path or 'a file'} or on the command line, for example {unset[0]}=VALUE"
        raise ConfigError("\n".join(f"{key} is not set; {remedy}" for key in unset))
    return OmegaConf.to_object(config)  # type: ignore[return-value]


def dump_config(config: RunConfig) -> str:
    """The settings as YAML; `load_config` of that text gives `config` again, without a reference in it."""
    return OmegaConf.to_yaml(OmegaConf.create(escaped(plain(config))))


def plain(value: Any) -> Any:
    """`value`, a setting or a section, as dicts, lists and what YAML has by itself."""
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value.value if isinstance(value, Enum) else value


def _read(path: Path, above: tuple[Path, ...]) -> Settings:
    """The settings of one file over those of its base; `above` are the files that led here."""
    place = path.resolve()
    if place in above:
        raise ConfigError(f"{path}: base leads back to the file itself; take one `base` out")
    settings = _parse(path)
    base = settings.pop("base", None)
    if base is not None and not isinstance(base, str):
        raise ConfigError(f"{path}: base = {base!r}: the path of another YAML file is accepted")
    _refuse_mistakes(settings, path)
    anchor(settings, path.parent)
    if base is None:
        return settings
    return _merged(_read(_base(path, base), (*above, place)), settings)


def _base(path: Path, text: str) -> Path:
    """The file that `base: text` in the file at `path` means; it may refer to the environment."""
    try:
        return path.parent / os.path.expanduser(OmegaConf.create({"base": text}).base)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{path}: {unreadable(error)}") from None


def _read_text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _parse(path: Path, *, read: Callable[[Path], str] = _read_text) -> Settings:
    try:
        text = read(path)
        settings = OmegaConf.to_container(OmegaConf.create(text))
        node = yaml.compose(text, Loader=Loader)
        _refuse_huge_numbers(settings)
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such file; give the path of a YAML file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error})") from None
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{path}{line}: is not valid YAML: {error.problem}") from None
    except GrammarParseError as error:
        raise ConfigError(f"{path}: {unreadable(error)}") from None
    except Exception as error:  # PyYAML and OmegaConf let through whatever a value's conversion raises
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(f"{path}: is not valid YAML with sections such as `policy:` ({reason})") from None
    if not isinstance(settings, dict):
        raise ConfigError(f"{path}: holds a list; sections such as `policy:` are accepted at the top")
    written: Settings = as_written(settings, node, RunConfig)
    if isinstance(node, yaml.MappingNode) and "base" in written:
        written["base"] = as_written(written["base"], children(node)["base"], str)
    return written


def _is_looked_up(text: str) -> bool:
    """If OmegaConf takes a part of `text` for a reference; `escaped` puts an odd number of \\ before."""
    return any(len(match[1]) % 2 == 0 for match in re.finditer(r"(\\*)\$\{", text))


def _refuse_huge_numbers(value: Any) -> None:
    """Raise ValueError for an integer that no float can hold: Python refuses to print the largest of them."""
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, list):
        for item in value:
            _refuse_huge_numbers(item)
    elif isinstance(value, int) and abs(value) > sys.float_info.max:
        raise ValueError("a number has more than 308 digits")


def _apply(settings: Settings, override: str) -> None:
    """Put one "section.key=value" into `settings`, in place."""
    key, equals, text = override.partition("=")
    if not equals or not KEY.fullmatch(key):
        raise ConfigError(f"{override!r}: KEY=VALUE is accepted, for example schedule.num_steps=20")
    names = re.findall(r"\w+", key)
    try:
        value = read_value(text, type_at(names))
        _refuse_huge_numbers(value)
    except Exception:  # as above
        raise ConfigError(f"{override!r}: the value is not valid YAML; put it in quotes") from None
    *parents, last = names
    node: Any = settings
    for parent in parents:
        node = _child(node, parent, key)
    if isinstance(node, list):
        _entry(node, last, key)
        node[int(last)] = value
    else:
        node[last] = value


def _child(node: Any, name: str, key: str) -> Any:
    """The part of the settings below `node`; a section that is not there yet is made."""
    child = _entry(node, name, key) if isinstance(node, list) else node.setdefault(name, {})
    if not isinstance(child, dict | list):
        raise ConfigError(f"{key}: {name} is a value, not a section; end the key there")
    return child


def _entry(values: list[Any], name: str, key: str) -> Any:
    if not name.isdecimal() or int(name) >= len(values):
        raise ConfigError(f"{key}: [{name}] is not in the list, which has {len(values)} entries (from 0)")
    return values[int(name)]


def _refuse_mistakes(settings: Settings, source: object = None) -> None:
    """Those of one source, with references as they are; without one, of all settings once resolved."""
    found = find_mistakes(settings, unresolved=source is not None)
    if problems := [problem if source is None else f"{source}: {problem}" for problem in found]:
        raise ConfigError("\n".join(problems))


def _merged(base: Settings, over: Settings) -> Settings:
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merged(merged[key], value) if both else value
    return merged
