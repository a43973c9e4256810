"""From run folders to curves: runs that differ only in name and seed are one. Nothing is drawn here."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from rlstack.config.load import stored_text
from rlstack.errors import ConfigError
from rlstack.telemetry.axes import Axis
from rlstack.telemetry.run_links import refuse_links


@dataclass(frozen=True, slots=True, kw_only=True)
class RunLog:
    """What a run folder says about the course of the run."""

    path: Path
    name: str
    settings: dict[str, Any]  # all but the section `run`
    steps: list[dict[str, Any]]  # rows of metrics.jsonl; then the evaluations, each at its version


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """Runs that are drawn as one line."""

    label: str
    runs: tuple[RunLog, ...]  # one per seed


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """A metric of a curve at the steps that all of its runs have; all arrays are of one length."""

    x: np.ndarray  # float64, where on the axis; of several runs the mean
    mean: np.ndarray  # float64, over the runs
    low: np.ndarray  # float64, of the lowest run
    high: np.ndarray  # float64, of the highest run


def read_run(folder: Path) -> RunLog:
    """The run in `folder`, which may still be going on.

    Raises ConfigError if the folder is not that of a run, or if the run has not taken a step.
    """
    try:
        settings = read_settings(folder)
        steps = list(read_rows(folder / "metrics.jsonl"))
    except OSError as error:
        problem = f"{error.strerror}: {error.filename}"
        raise ConfigError(f"{folder}: is not the folder of a run ({problem}); give one") from None
    if not steps:
        raise ConfigError(f"{folder}: the run has not finished a step; leave it out")
    name = settings.pop("run")["name"]
    return RunLog(path=folder, name=str(name), settings=settings, steps=[*steps, *_evaluations(folder)])


def _evaluations(folder: Path) -> Iterator[dict[str, Any]]:
    """Those outside the steps are in summary.json only, which a run that is going on has not got."""
    if (folder / "summary.json").exists():
        for metrics in read_summary(folder)["evaluations"]:
            yield {"step": metrics["eval/version"], **metrics}


def read_settings(folder: Path) -> dict[str, Any]:
    """config.yaml of the run in `folder`, with a section `run` that has a name.

    Raises OSError if there is none, ConfigError if it is not one, or if a file there is a link or a pipe.
    """
    refuse_links(folder.resolve())
    path = folder / "config.yaml"
    try:
        settings = yaml.safe_load(stored_text(path))
        settings["run"]["name"]
    except OSError:
        raise
    except Exception:  # PyYAML lets through whatever a value's conversion raises
        raise ConfigError(f"{path}: is not the settings of a run; the file is damaged") from None
    return dict(settings)


def read_summary(folder: Path) -> dict[str, Any]:
    """What the run in `folder` left as summary.json.

    Raises OSError while it is going on, ConfigError if the file is not a JSON object, or not a run's.
    """
    path = folder / "summary.json"
    summary = _object(path.read_bytes(), at=str(path))
    rows = summary.setdefault("evaluations", [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) and "eval/version" in row for row in rows):
        raise ConfigError(f"{path}: its evaluations are not those of a run; the file is damaged, take a copy")
    return summary


def read_rows(path: Path, *, num_bytes: int | None = None) -> Iterator[dict[str, Any]]:
    """The rows of a JSON-lines file; a last line that is still being written is left out.

    path: of a file that may be compressed, .gz.
    num_bytes: how much of the file is read, up to the end of a line; None: all.

    Raises OSError if there is no such file, ConfigError for a line that is not a JSON object.
    """
    with decompressing(path), gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if num_bytes is not None and (num_bytes := num_bytes - len(line)) < 0:
                return
            if line.endswith(b"\n"):
                yield _object(line, at=f"{path}, line {number}")


@contextmanager
def decompressing(path: Path) -> Iterator[None]:
    """Raise ConfigError, naming it, for a file that turns out not to be one of gzip's."""
    try:
        yield
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ConfigError(f"{path}: cannot be decompressed ({error}); it is damaged, take a copy") from None


def _object(text: bytes, *, at: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{at}: is not JSON ({error}); the file is damaged, take a copy") from None
    if not isinstance(found, dict):
        raise ConfigError(f"{at}: is not a JSON object; the file is damaged, take a copy")
    return found


def make_curves(runs: Sequence[RunLog]) -> list[Curve]:
    """One curve for the runs of the same settings, in the order of the first of each."""
    groups: dict[str, list[RunLog]] = {}
    for run in runs:
        groups.setdefault(json.dumps(run.settings, sort_keys=True), []).append(run)
    labels = [_label([run.name for run in group]) for group in groups.values()]
    if len(set(labels)) < len(labels):
        labels = [", ".join(run.name for run in group) for group in groups.values()]
    return [
        Curve(label=label, runs=tuple(group)) for label, group in zip(labels, groups.values(), strict=True)
    ]


def _label(names: Sequence[str]) -> str:
    """What the names begin with, without a "seed" that the numbers after it belonged to."""
    if len(names) == 1:
        return names[0]
    first, last = min(names), max(names)  # what these two begin with, those in between begin with too
    length = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    common = first[:length].rstrip("-_. ").removesuffix("seed").rstrip("-_. ")
    return common or ", ".join(names)


def make_band(curve: Curve, metric: str, *, window: int, axis: Axis = Axis.step) -> Band | None:
    """`metric` as the mean over the last `window` steps, fewer at the start; None if a run has none of it."""
    series = [
        {row["step"]: float(row[metric]) for row in run.steps if row.get(metric) is not None}
        for run in curve.runs
    ]
    steps = sorted(set.intersection(*(set(values) for values in series)))
    if not steps:
        return None
    smoothed = np.array([trailing_mean([values[step] for step in steps], window) for values in series])
    places = [positions(run, axis) for run in curve.runs]
    x = np.array([[at[step] for step in steps] for at in places], dtype=np.float64).mean(0)
    return Band(x=x, mean=smoothed.mean(0), low=smoothed.min(0), high=smoothed.max(0))


def positions(run: RunLog, axis: Axis) -> dict[int, float]:
    """Where on the axis each version of the run came to be; version 0 is at 0. Time is in seconds."""
    if axis is Axis.step:
        return {row["step"]: row["step"] for row in run.steps}
    metric = {Axis.time: "time/step_s", Axis.tokens: "tokens/generated"}[axis]
    places, total = {0: 0.0}, 0.0
    for row in run.steps:
        total += row.get(metric) or 0.0
        places.setdefault(row["step"], total)  # evaluations come once more, after all steps
    return places


def trailing_mean(values: Sequence[float], window: int) -> np.ndarray:
    """The mean of each value and the `window` - 1 before it, as far as there are; [n] float64."""
    sums = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    ends = np.arange(1, len(sums))
    starts = np.maximum(ends - window, 0)
    return (sums[ends] - sums[starts]) / (ends - starts)
