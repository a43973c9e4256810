"""What is written and deleted in a folder stays in it: links that lead out of it are refused, and pipes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from rlstack.errors import ConfigError


def refuse_links(folder: Path, *, below: tuple[str, ...] = ()) -> None:
    """Raise ConfigError, naming it, if `folder` or anything directly in it is neither a file nor a folder.

    below: folders in it of which the same holds. What is not there is no link.
    """
    for path in _entries(folder, below):
        if path.is_symlink():
            raise ConfigError(
                f"{path} is a link to {os.readlink(path)}, and only what lies in {folder} itself is read, "
                "written and deleted there; put the files there, or choose another folder"
            )
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise ConfigError(f"{path} is neither a file nor a folder; remove it, or choose another folder")


def _entries(folder: Path, below: tuple[str, ...]) -> Iterator[Path]:
    yield folder
    for inside in (folder, *(folder / name for name in below)):
        if inside.is_dir() and not inside.is_symlink():
            yield from sorted(inside.iterdir())
