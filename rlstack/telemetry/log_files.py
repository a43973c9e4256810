"""The files of a run that grow line by line: how long they are, and back to an earlier length."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from rlstack.errors import ConfigError

METRICS, ROLLOUTS, ALARMS, INTERVALS = "metrics.jsonl", "rollouts.jsonl", "alarms.jsonl", "intervals.jsonl"
TIMELINE, GPUS = "timeline.jsonl", "gpus.jsonl"
RESTARTS = "restarts.jsonl"  # which is never cut: what was undone is in it too
FILES = (METRICS, ROLLOUTS, ALARMS, INTERVALS, TIMELINE, GPUS)


def lengths(folder: Path) -> dict[str, int]:
    """Bytes of each of FILES that is there, all of which are on disk once this returns."""
    found: dict[str, int] = {}
    for path in (folder / name for name in FILES):
        if path.exists():
            with path.open("rb") as file:
                os.fsync(file.fileno())
                found[path.name] = os.fstat(file.fileno()).st_size
    return found


def cut_back(folder: Path, to: Mapping[str, int]) -> None:
    """Cut each of FILES to its length in bytes in `to`, 0 where it has none; others may hold them open.

    Raises ConfigError, before anything is cut, if a file is shorter than that.
    """
    paths = [folder / name for name in FILES]
    now = {path: path.stat().st_size if path.exists() else 0 for path in paths}
    for path, size in now.items():
        if size < to.get(path.name, 0):
            raise ConfigError(
                f"{path}: has {size} bytes, and its run had written {to[path.name]} of them when the "
                "checkpoint was saved; put the whole file back to resume the run"
            )
    for path, size in now.items():
        if size > to.get(path.name, 0):
            os.truncate(path, to.get(path.name, 0))
