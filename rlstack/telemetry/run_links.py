"""A run writes and deletes below its own folder only: what leads out of it is refused."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from rlstack.errors import ConfigError


def refuse_links(folder: Path, *, below: tuple[str, ...] = ()) -> None:
    """Raise ConfigError, naming it, if `folder` is a symbolic link, or if something directly in it is one.

    below: folders in it of which the same holds. What is not there is no link.
    """
    for path in _entries(folder, below):
        if path.is_symlink():
            raise ConfigError(
                f"run.name = {folder.name}: {path} is a link to {os.readlink(path)}, and a run writes and "
                "deletes in its own folder only; put the files there, or choose another run.dir"
            )


def _entries(folder: Path, below: tuple[str, ...]) -> Iterator[Path]:
    yield folder
    for inside in (folder, *(folder / name for name in below)):
        if inside.is_dir() and not inside.is_symlink():
            yield from sorted(inside.iterdir())
