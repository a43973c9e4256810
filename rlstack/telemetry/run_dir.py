"""The folder of a run: what other people's scripts read."""

from __future__ import annotations

import json
import math
import numbers
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from rlstack.config.load import dump_config, load_stored
from rlstack.config.resume import Contents, resume_problems
from rlstack.config.schema import RunConfig
from rlstack.errors import ConfigError
from rlstack.files import naming, try_lock, written_at_once
from rlstack.telemetry.curves import read_summary
from rlstack.telemetry.log_files import (
    ALARMS,
    INTERVALS,
    METRICS,
    RESTARTS,
    cut_back,
    is_begun,
    keep_aside,
)
from rlstack.telemetry.metrics import check_declared
from rlstack.telemetry.rollout_shards import RolloutLog
from rlstack.telemetry.run_links import refuse_links

CONFIG, SUMMARY, CHECKPOINTS, INPUTS = "config.yaml", "summary.json", "checkpoints", "inputs.json"
PROFILE = "profile"  # there if steps were traced, or a GPU's memory was full
NOT_FOR_OTHERS = 0o770  # less what the umask takes, which says if a run is for the user's group too


class RunDirectory:
    """config.yaml, {metrics,rollouts,alarms,intervals}.jsonl, summary.json, model/ and logs/ below `path`."""

    def __init__(
        self, path: Path, config: RunConfig, *, moved_to: Path | None, lock: int, is_resumed: bool = False
    ) -> None:
        self._config = config
        self.path = path
        self.checkpoints = path / CHECKPOINTS
        self.logs = path / "logs"
        self.model = path / "model"  # not made here: it is there once the model has been saved
        self.moved_to = moved_to  # where an earlier run of this name is now
        self.is_resumed = is_resumed  # an earlier run's, of which everything is still there
        self._lock = lock
        self._metrics = (path / METRICS).open("a", encoding="utf-8")
        self._rollouts = RolloutLog(path, max_gib=config.telemetry.rollouts_max_gib)
        self._last_step = 0

    @classmethod
    def create(cls, config: RunConfig, *, inputs: Contents | None = None) -> RunDirectory:
        """Make the folder `run.dir`/`run.name`; one that is there already is kept as `run.name`.1, .2, ...

        inputs: what inputs.json is to hold.

        Raises ConfigError if a run of this name is going on, or if the folder cannot be made.
        """
        path = folder_of(config)
        with _usable(config):
            refuse_links(path)
            moved_to = _move_aside(path)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.mkdir(mode=NOT_FOR_OTHERS)
            (path / "logs").mkdir()
            if inputs is not None:
                write_json(path / INPUTS, inputs)
            _write_config(path, config)
            return cls(path, config, moved_to=moved_to, lock=_lock(path))

    @classmethod
    def resume(cls, config: RunConfig, *, inputs: Contents | None = None) -> RunDirectory:
        """Take over the folder of an earlier run, with the settings of `config`; make it if there is none.

        What the run has left stays as it is, until it is cut back. inputs: as take_over takes it.

        Raises ConfigError as `take_over` does.
        """
        lock = take_over(config, inputs=inputs)
        if lock is None:
            return cls.create(config, inputs=inputs)
        with _usable(config):
            return cls(folder_of(config), config, moved_to=None, lock=lock, is_resumed=True)

    @property
    def config(self) -> Path:
        """The run's settings; relative to the working directory if they are below it."""
        path, here = self.path / CONFIG, Path.cwd()
        return path.relative_to(here) if path.is_relative_to(here) else path

    def log_step(self, metrics: Mapping[str, Any]) -> None:
        """Append one step to metrics.jsonl. Its "step" is above the last one's; its names are declared."""
        check_declared(metrics)
        step = metrics["step"]
        if step <= self._last_step:
            raise ValueError(f"step {step} comes after step {self._last_step}: each is logged once, in order")
        self._last_step = step
        with naming(self.path / METRICS):
            self._metrics.write(to_json(metrics) + "\n")
            self._metrics.flush()

    def log_rollouts(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append the rows to rollouts.jsonl, which becomes a shard where it is large."""
        self._rollouts.write(to_json(row) + "\n" for row in rows)

    def log_alarms(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append the rows to alarms.jsonl, which is there from the first alarm on."""
        self._append(ALARMS, rows)

    def log_interval(self, row: Mapping[str, Any]) -> None:
        """Append a decision about the sync interval to intervals.jsonl, which is there if any is made."""
        self._append(INTERVALS, [row])

    def log_restart(self, row: Mapping[str, Any]) -> None:
        """Append a role's replacement to restarts.jsonl, which is there from the first one on."""
        self._append(RESTARTS, [row])

    def _append(self, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
        if lines := [to_json(row) + "\n" for row in rows]:
            path = self.path / name
            with naming(path), path.open("a", encoding="utf-8") as file:
                file.writelines(lines)

    def cut_back(self, lengths: Mapping[str, int], *, last_step: int) -> None:
        """Take the files of lines back to where they had these `lengths`, in bytes, after `last_step`.

        What is logged is kept in a folder beside them where that is the start.

        Raises ConfigError if one of them is shorter.
        """
        self._rollouts.settle()
        if last_step == 0 and is_begun(self.path):
            keep_aside(self.path)
        cut_back(self.path, lengths)
        self._rollouts.reopen()
        _write_config(self.path, self._config)
        (self.path / SUMMARY).unlink(missing_ok=True)  # it is there for a run that has ended
        self._last_step = last_step

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write summary.json."""
        write_json(self.path / SUMMARY, summary)

    def close(self) -> None:
        """Close the files and let another run of this name begin."""
        with ExitStack() as closing:  # whatever the disk says to the first of them
            closing.callback(os.close, self._lock)
            closing.callback(self._rollouts.close)
            closing.callback(self._metrics.close)


def folder_of(config: RunConfig) -> Path:
    """Where a run of these settings leaves everything."""
    return Path(config.run.dir).expanduser().absolute() / config.run.name


def check_folder(config: RunConfig, *, resume: bool, inputs: Contents | None = None) -> None:
    """Raise ConfigError for what RunDirectory would refuse of the run's folder; nothing is changed there.

    inputs: as take_over takes it.
    """
    path = folder_of(config)
    refuse_links(path, below=(CHECKPOINTS,) if resume else ())
    if not path.is_dir():
        return
    os.close(_lock(path))
    if resume and num_steps_completed(path) < config.schedule.num_steps:
        lock = take_over(config, inputs=inputs)
        if lock is not None:
            os.close(lock)


def num_steps_completed(folder: Path) -> int:
    """The steps of the last run in `folder` if it has done all that it was asked for; 0 if not."""
    try:
        summary = read_summary(folder)
        return int(summary["steps"]) if summary["status"] == "completed" else 0
    except (OSError, ValueError, KeyError):
        return 0


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


def take_over(config: RunConfig, *, inputs: Contents | None = None) -> int | None:
    """Hold the folder of the earlier run of the same name, of which everything stays as it is.

    inputs: what the paths among the settings lead to; None: a run is known by its paths alone.

    Returns:
        What to close with os.close() when it is no longer to be held; None if there is no earlier run.

    Raises ConfigError if a run of this name is going on, if it cannot go on with these settings, if it has
    come to its end without a checkpoint, or if its files cannot be read.
    """
    path = folder_of(config)
    with _usable(config):
        refuse_links(path, below=(CHECKPOINTS,))
        if not (path / CONFIG).exists():
            _refuse_without_settings(path)
            return None
        lock = _lock(path)
        try:
            _refuse_to_resume(path, config, inputs or {})
        except BaseException:
            os.close(lock)
            raise
        return lock


def read_inputs(folder: Path) -> Contents:
    """What inputs.json of the run in `folder` holds; nothing of a run that has none.

    Raises ConfigError if it is damaged, OSError if it cannot be read.
    """
    path = folder / INPUTS
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_bytes())
        return {
            str(key): {str(name): str(digest) for name, digest in of.items()} for key, of in found.items()
        }
    except (ValueError, AttributeError, RecursionError) as error:
        raise ConfigError(
            f"{path}: is damaged ({error}); remove it to go on with the same paths and what is there now"
        ) from None


@contextmanager
def _usable(config: RunConfig) -> Iterator[None]:
    """Raise an OSError inside as a ConfigError about the run's folder."""
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"run.dir = {config.run.dir}: {error}; give a folder to write to, or try again once it can be"
        ) from None


def _refuse_to_resume(folder: Path, config: RunConfig, inputs: Contents) -> None:
    """Raise ConfigError if the run in `folder` cannot go on with the settings of `config`."""
    before = load_stored(folder / CONFIG)
    if problems := resume_problems(before, config, had=read_inputs(folder), has=inputs):
        raise ConfigError("\n".join(problems))
    if num_steps_completed(folder) and not any((folder / CHECKPOINTS).glob("step-*")):
        raise ConfigError(
            f"run.name = {folder.name}: that run has completed and left no checkpoint in {folder} to go on "
            "from; leave --resume out to run it again"
        )


def _refuse_without_settings(folder: Path) -> None:
    """Raise ConfigError if `folder`, which has no settings, has checkpoints."""
    if not (folder / CHECKPOINTS).exists():
        return
    if found := [name for name in os.listdir(folder / CHECKPOINTS) if name.startswith("step-")]:
        raise ConfigError(
            f"{folder / CONFIG}: is missing, and {len(found)} checkpoints are there, up to {max(found)}; "
            "put it back to go on from there, or leave --resume out to start afresh beside that folder"
        )


def _write_config(folder: Path, config: RunConfig) -> None:
    with written_at_once(folder / CONFIG) as file:
        file.write(dump_config(config))


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
