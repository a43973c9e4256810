"""The folder of a run: what other people's scripts read."""

from __future__ import annotations

import json
import math
import numbers
import os
from collections.abc import Iterable, Mapping
from itertools import count
from pathlib import Path
from typing import Any

from rlstack.config.load import dump_config
from rlstack.config.schema import RunConfig
from rlstack.errors import ConfigError
from rlstack.files import try_lock, written_at_once
from rlstack.telemetry.metrics import check_declared


class RunDirectory:
    """config.yaml, {metrics,rollouts,alarms,intervals}.jsonl, summary.json, model/ and logs/ below `path`."""

    def __init__(self, path: Path, *, moved_to: Path | None, lock: int) -> None:
        self.path = path
        self.logs = path / "logs"
        self.model = path / "model"  # not made here: it is there once the model has been saved
        self.moved_to = moved_to  # where an earlier run of this name is now
        self._lock = lock
        self._metrics = (path / "metrics.jsonl").open("a", encoding="utf-8")
        self._rollouts = (path / "rollouts.jsonl").open("a", encoding="utf-8")
        self._last_step = 0

    @classmethod
    def create(cls, config: RunConfig) -> RunDirectory:
        """Make the folder `run.dir`/`run.name`; one that is there already is kept as `run.name`.1, .2, ...

        Raises ConfigError if a run of this name is going on, or if the folder cannot be made.
        """
        path = Path(config.run.dir).expanduser().absolute() / config.run.name
        try:
            moved_to = _move_aside(path)
            (path / "logs").mkdir(parents=True)
            lock = _lock(path)
        except OSError as error:
            raise ConfigError(f"run.dir = {config.run.dir}: {error}; give a folder to write to") from None
        (path / "config.yaml").write_text(dump_config(config), encoding="utf-8")
        return cls(path, moved_to=moved_to, lock=lock)

    def log_step(self, metrics: Mapping[str, Any]) -> None:
        """Append one step to metrics.jsonl. Its "step" is above the last one's; its names are declared."""
        check_declared(metrics)
        step = metrics["step"]
        if step <= self._last_step:
            raise ValueError(f"step {step} comes after step {self._last_step}: each is logged once, in order")
        self._last_step = step
        self._metrics.write(to_json(metrics) + "\n")
        self._metrics.flush()

    def log_rollouts(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append the rows to rollouts.jsonl."""
        self._rollouts.writelines(to_json(row) + "\n" for row in rows)
        self._rollouts.flush()

    def log_alarms(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append the rows to alarms.jsonl, which is there from the first alarm on."""
        self._append("alarms.jsonl", rows)

    def log_interval(self, row: Mapping[str, Any]) -> None:
        """Append a decision about the sync interval to intervals.jsonl, which is there if any is made."""
        self._append("intervals.jsonl", [row])

    def _append(self, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
        if lines := [to_json(row) + "\n" for row in rows]:
            with (self.path / name).open("a", encoding="utf-8") as file:
                file.writelines(lines)

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write summary.json."""
        write_json(self.path / "summary.json", summary)

    def close(self) -> None:
        """Close the files and let another run of this name begin."""
        self._metrics.close()
        self._rollouts.close()
        os.close(self._lock)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write `value` to the file at `path`; a reader sees the whole of it, or what was there before."""
    with written_at_once(path) as file:
        file.write(to_json(value, indent=2) + "\n")


def to_json(value: Any, *, indent: int | None = None) -> str:
    """JSON as the standard has it: NaN and infinity, which it cannot write, become null."""
    return json.dumps(_plain(value), indent=indent, ensure_ascii=False, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, numbers.Integral):  # numpy's too
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value) if math.isfinite(value) else None
    raise TypeError(f"{value!r} cannot be written as JSON")


def _move_aside(path: Path) -> Path | None:
    if not path.exists():
        return None
    os.close(_lock(path))
    moved_to = next(p for n in count(1) if not (p := path.with_name(f"{path.name}.{n}")).exists())
    return path.rename(moved_to)


def _lock(path: Path) -> int:
    """As files.try_lock; refuses a folder that another run holds."""
    descriptor = try_lock(path)
    if descriptor is None:
        raise ConfigError(
            f"run.name = {path.name}: a run of this name is going on in {path}; "
            "wait for its end, or give another run.name"
        )
    return descriptor
