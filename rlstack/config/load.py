"""From a file and the command line to a RunConfig, and back to YAML.

A file may name another one as its `base` and then holds only what differs; lists replace lists. Paths in a
file are relative to that file, paths on the command line to the working directory, so that a configuration
works from any directory.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rlstack.config.mistakes import find_mistakes
from rlstack.config.schema import RunConfig
from rlstack.config.urls import is_url
from rlstack.errors import ConfigError

KEY = re.compile(r"[A-Za-z_]\w*(\.\w+|\[\d+\])*")
UNSET = "???"  # OmegaConf's mark of a setting without a default

Settings = dict[str, Any]


def load_config(path: Path | str | None, overrides: Sequence[str] = ()) -> RunConfig:
    """The settings of the file at `path`, with each of `overrides` ("section.key=value") put over them.

    Without a path, the defaults with `overrides` over them.

    Raises ConfigError for a file that cannot be read, for settings that do not exist or do not fit their
    type, and for mandatory settings that are not given.
    """
    settings = {} if path is None else _read(Path(path), ())
    for override in overrides:
        _apply(settings, override)
    if overrides:
        _refuse_mistakes(settings, "command line")  # the file's own have been refused
        _anchor(settings, Path.cwd())
    try:
        config = OmegaConf.merge(OmegaConf.structured(RunConfig), settings)
        if unset := sorted(OmegaConf.missing_keys(config)):
            remedy = f"give it in {path or 'a file'} or on the command line, for example {unset[0]}=VALUE"
            raise ConfigError("\n".join(f"{key} is not set; {remedy}" for key in unset))
        return OmegaConf.to_object(config)  # type: ignore[return-value]
    except OmegaConfBaseException as error:  # what is left: an interpolation that leads nowhere
        raise ConfigError(f"{path}: {_first_line(error)}") from None


def dump_config(config: RunConfig) -> str:
    """The resolved settings as YAML; `load_config` of that text gives `config` again."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))


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
    _anchor(settings, path.parent)
    if base is None:
        return settings
    return _merged(_read(path.parent / base, (*above, place)), settings)


def _parse(path: Path) -> Settings:
    try:
        settings = OmegaConf.to_container(OmegaConf.create(path.read_text(encoding="utf-8")))
        _refuse_huge_numbers(settings)
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such file; give the path of a YAML file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error})") from None
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{path}{line}: is not valid YAML: {error.problem}") from None
    except Exception as error:  # PyYAML and OmegaConf let through whatever a value's conversion raises
        reason = _first_line(error)
        raise ConfigError(f"{path}: is not valid YAML with sections such as `policy:` ({reason})") from None
    if not isinstance(settings, dict):
        raise ConfigError(f"{path}: holds a list; sections such as `policy:` are accepted at the top")
    return settings  # type: ignore[return-value]


def _refuse_huge_numbers(value: Any) -> None:
    """Raise ValueError for an integer that no float can hold: Python refuses to print the largest of them."""
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, list):
        for item in value:
            _refuse_huge_numbers(item)
    elif isinstance(value, int) and abs(value) > sys.float_info.max:
        raise ValueError("a number has more than 308 digits")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _apply(settings: Settings, override: str) -> None:
    """Put one "section.key=value" into `settings`, in place."""
    key, equals, text = override.partition("=")
    if not equals or not KEY.fullmatch(key):
        raise ConfigError(f"{override!r}: KEY=VALUE is accepted, for example schedule.num_steps=20")
    try:
        value = yaml.safe_load(text)
        _refuse_huge_numbers(value)
    except Exception:  # as above
        raise ConfigError(f"{override!r}: the value is not valid YAML; put it in quotes") from None
    *parents, last = re.findall(r"\w+", key)
    node: Any = settings
    for parent in parents:
        node = _child(node, parent, key)
    if isinstance(node, list):
        _child(node, last, key)
        node[int(last)] = value
    else:
        node[last] = value


def _child(node: Any, name: str, key: str) -> Any:
    """The part of the settings below `node`; a section that is not there yet is made."""
    if isinstance(node, list):
        if not name.isdecimal() or int(name) >= len(node):
            raise ConfigError(f"{key}: [{name}] is not in the list, which has {len(node)} entries (from 0)")
        return node[int(name)]
    child = node.setdefault(name, {})
    if not isinstance(child, dict | list):
        raise ConfigError(f"{key}: {name} is a value, not a section; end the key there")
    return child


def _refuse_mistakes(settings: Settings, source: object) -> None:
    if problems := [f"{source}: {problem}" for problem in find_mistakes(settings)]:
        raise ConfigError("\n".join(problems))


def _anchor(settings: Settings, folder: Path) -> None:
    """Make the input paths absolute, in place; those that are already stay as they are."""
    for owner, key in _input_paths(settings):
        # An interpolation is no path yet, and a URL is for others to refuse as it was given.
        if owner[key] != UNSET and not str(owner[key]).startswith("${") and not is_url(str(owner[key])):
            owner[key] = os.path.abspath(folder / Path(str(owner[key])).expanduser())


def _input_paths(settings: Settings) -> Iterator[tuple[Settings, str]]:
    if "model" in settings.get("policy", {}):
        yield settings["policy"], "model"
    if settings.get("schedule", {}).get("adaptive", {}).get("replay") is not None:
        yield settings["schedule"]["adaptive"], "replay"
    for model in settings.get("reward", {}).get("models", []):
        if "path" in model:
            yield model, "path"
    for section in ("data", "evaluation"):
        for task in settings.get(section, {}).get("tasks", []):
            if "path" in task:
                yield task, "path"


def _merged(base: Settings, over: Settings) -> Settings:
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merged(merged[key], value) if both else value
    return merged
