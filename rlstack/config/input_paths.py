"""The settings that are paths of files to read, which are relative to where they were written."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rlstack.config.references import UNSET, Names, Settings, escaped, is_reference, joined, nodes_of
from rlstack.config.values import NULL_WORDS
from rlstack.urls import is_url


class Unanchored(str):
    """A path with references in it: what they stand for comes before the folder that it is relative to."""

    __slots__ = ("folder",)
    folder: Path


def absolute(text: str, folder: Path) -> str:
    """The path `text`, relative to `folder` unless it begins with / or ~; a URL as it is, to be refused."""
    return text if is_url(text) else os.path.abspath(folder / os.path.expanduser(text))


def anchor(settings: Settings, folder: Path) -> None:
    """Make the input paths absolute, in place; what has references keeps `folder` for `anchor_references`."""
    for _, owner, key in _input_paths(settings):
        text = owner[key]
        if text == UNSET or not isinstance(text, str) or isinstance(text, Unanchored):
            continue
        if is_reference(text):
            owner[key] = Unanchored(text)
            owner[key].folder = folder
        else:
            owner[key] = escaped(absolute(text, folder))


def anchor_references(settings: Settings) -> Settings:
    """`settings` with what the references in input paths stand for, made absolute where it was written.

    A path that refers to another one comes after it. What leads nowhere stays as it is, without its folder.

    Raises:
        ConfigError: a reference anywhere is not well formed.
    """
    left = {joined(names): (owner, key) for names, owner, key in _input_paths(settings)}
    left = {name: (owner, key) for name, (owner, key) in left.items() if isinstance(owner[key], Unanchored)}
    while left:
        ready = [name for name, (owner, key) in left.items() if not _refers(owner[key], left.keys() - {name})]
        nodes = nodes_of(_plain(settings))
        for name in ready or list(left):
            owner, key = left.pop(name)
            try:
                text = OmegaConf.select(nodes, name)
            except OmegaConfBaseException:  # told with all others that lead nowhere
                continue
            if isinstance(text, str) and text not in NULL_WORDS:
                owner[key] = escaped(absolute(text, owner[key].folder))
    return _plain(settings)


def _refers(text: str, names: set[str]) -> bool:
    return any(f"${{{name}}}" in text for name in names)


def _plain(value: Any) -> Any:
    """A copy with texts that OmegaConf takes."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Unanchored) else value


def _input_paths(settings: Settings) -> Iterator[tuple[Names, Settings, str]]:
    """Each input path that is given: the names that lead to it, the section that holds it, its key there."""
    for names in (("policy", "model"), ("schedule", "adaptive", "replay")):
        section: Any = settings
        for name in names[:-1]:
            section = section.get(name) if isinstance(section, dict) else None
        if isinstance(section, dict) and names[-1] in section:
            yield names, section, names[-1]
    for names in (("reward", "models"), ("data", "tasks"), ("evaluation", "tasks")):
        section = settings.get(names[0])
        entries = section.get(names[1]) if isinstance(section, dict) else None
        for i, entry in enumerate(entries if isinstance(entries, list) else ()):
            if isinstance(entry, dict) and "path" in entry:
                yield (*names, i, "path"), entry, "path"
