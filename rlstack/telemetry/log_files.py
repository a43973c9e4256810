"""The files of a run that grow line by line: how long they are, and back to an earlier length."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from itertools import count
from pathlib import Path

from rlstack.errors import ConfigError
from rlstack.telemetry.rollout_shards import ROLLOUTS, SHARDS, shards, size_after, sync_shards, undo_shards

METRICS, ALARMS, INTERVALS = "metrics.jsonl", "alarms.jsonl", "intervals.jsonl"
TIMELINE, GPUS = "timeline.jsonl", "gpus.jsonl"
RESTARTS = "restarts.jsonl"  # which is never cut: what was undone is in it too
UNDONE = "undone"  # how the folders are called that keep what was logged before a start from step 0
FILES = (METRICS, ROLLOUTS, ALARMS, INTERVALS, TIMELINE, GPUS)


def lengths(folder: Path) -> dict[str, int]:
    """Bytes of each of FILES that is there, all of which are on disk once this returns.

    Under SHARDS there is the number of the last shard of rollouts.jsonl, where it has some.
    """
    found: dict[str, int] = {}
    for path in (folder / name for name in FILES):
        if path.exists():
            with path.open("rb") as file:
                os.fsync(file.fileno())
                found[path.name] = os.fstat(file.fileno()).st_size
    if last_shard := sync_shards(folder):
        found[SHARDS] = last_shard
    return found


def check_lengths(folder: Path, to: Mapping[str, int]) -> None:
    """Raise ConfigError if one of FILES is shorter than its bytes in `to`, or cannot be changed."""
    for path in (folder / name for name in FILES):
        wanted = to.get(path.name, 0)
        try:
            if path.exists():
                path.open("r+b").close()
            is_sharded = path.name == ROLLOUTS
            size = size_after(folder, to.get(SHARDS, 0)) if is_sharded else path.stat().st_size
        except FileNotFoundError:
            size = 0
        except OSError as error:
            raise ConfigError(
                f"{path}: cannot be read and written ({error.strerror}), and the run goes on in it; nothing "
                "was changed: try again once it can"
            ) from None
        if size is not None and size < wanted:  # None: rollouts that a limit has removed
            raise ConfigError(
                f"{path}: has {size} bytes, and its run had written {wanted} of them when the "
                "checkpoint was saved; put the whole file back to resume the run"
            )


def check_takes_files(*folders: Path) -> None:
    """Raise ConfigError if one of `folders` is there, and this user cannot make files in it."""
    for folder in folders:
        if folder.is_dir() and not os.access(folder, os.W_OK | os.X_OK):
            raise ConfigError(
                f"{folder}: takes no files of this user's, and the run goes on in it; nothing was changed: "
                "try again once it does"
            )


def cut_back(folder: Path, to: Mapping[str, int]) -> None:
    """Cut each of FILES to its length in bytes in `to`, 0 where it has none; others may hold them open.

    Raises ConfigError, before anything is cut, if a file is shorter than that, or cannot be changed.
    """
    check_lengths(folder, to)
    undo_shards(folder, to.get(SHARDS, 0))
    for path in (folder / name for name in FILES):
        if path.exists() and path.stat().st_size > to.get(path.name, 0):
            os.truncate(path, to.get(path.name, 0))


def is_begun(folder: Path) -> bool:
    """Whether a run in `folder` has logged a rollout or a step."""
    logged = (folder / name for name in (METRICS, ROLLOUTS))
    return bool(shards(folder)) or any(path.exists() and path.stat().st_size for path in logged)


def keep_aside(folder: Path) -> Path:
    """Copy FILES and the shards of rollouts.jsonl to a new folder in `folder`: undone.1, .2, ..."""
    aside = next(path for n in count(1) if not (path := folder / f"{UNDONE}.{n}").exists())
    aside.mkdir()
    for path in (*(folder / name for name in FILES), *shards(folder).values()):
        if path.exists():
            shutil.copyfile(path, aside / path.name)
    return aside
