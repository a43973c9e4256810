"""What `rlstack evaluate` is asked for, checked before anything heavy is imported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlstack.config.machine import Machine
from rlstack.config.schema import RunConfig
from rlstack.config.validate import validate_evaluation
from rlstack.errors import ConfigError
from rlstack.evaluation.benchmarks import ANSWERS, Benchmark, BenchmarkName
from rlstack.evaluation.settings import Target, evaluation_config
from rlstack.model.architecture import Architecture
from rlstack.policy.model_folder import check_model_folder
from rlstack.telemetry.run_links import refuse_links


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """An evaluation: validated settings, and what is not among the settings."""

    config: RunConfig
    out: Path
    name: str  # of the model, in what is written for other tools
    version: int | None  # optimiser steps of a run's model
    benchmarks: Sequence[Benchmark]


def make_request(
    target: Target,
    *,
    tasks: Sequence[str],
    settings: Mapping[str, Any],
    overrides: Sequence[str],
    benchmarks: Mapping[BenchmarkName, Path | None],
    name: str | None,
    out: Path | None,
) -> Request:
    """The evaluation that the command's arguments stand for.

    Args:
        target: of `find_target`; it has the name and the folder where none is given.
        tasks, settings, overrides: as `evaluation_config` takes them.
        benchmarks: the file of each benchmark's questions, None for one that is left out.

    Raises:
        ConfigError: there is nothing to answer, an argument or a setting cannot be used, or `out` has links.
    """
    config = evaluation_config(target, tasks=tasks, settings=settings, overrides=overrides)
    asked = [Benchmark.read(which, path) for which, path in benchmarks.items() if path is not None]
    if not config.evaluation.tasks and not asked:
        raise ConfigError(f"{target.name}: has no evaluation.tasks; give --task NAME=PATH")
    if name is not None and Path(name).name != name:
        raise ConfigError(f"--name {name}: a name without a slash is accepted, for a file is named by it")
    architecture = Architecture.from_folder(Path(config.policy.model))
    validate_evaluation(config, architecture=architecture, machine=Machine.detect())
    check_model_folder(Path(config.policy.model))
    folder = out or target.out
    refuse_links(folder.resolve(), below=("logs", *BenchmarkName, f"{BenchmarkName.arena_hard}/{ANSWERS}"))
    return Request(
        config=config,
        out=folder,
        name=name or target.name,
        version=target.version,
        benchmarks=asked,
    )
