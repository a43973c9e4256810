"""Whether every node of a cluster can do its part: the same packages, the same models, the same run folder.

All of it is asked before a role starts, for what goes wrong later says less: a rank that cannot unpickle what
another version wrote, a log on a disk that nobody looks at.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from rlstack.config.model_files import CONFIG, open_file
from rlstack.errors import ConfigError
from rlstack.orchestration.placement import Node
from rlstack.telemetry.environment import package_versions

MISSING = ""


class Report(NamedTuple):
    """What a process on a node finds there."""

    versions: Mapping[str, str]
    models: Mapping[str, str]  # digests of their config.json by setting; MISSING where there is none
    sees_run: bool  # the file that the driver has put into the run's folder, and may write beside it


def check_nodes(
    nodes: Sequence[Node], *, models: Mapping[str, Path], run: Path | None, timeout_s: float
) -> None:
    """Ask `nodes` for their reports, side by side, and hold them against this process's own.

    models: folders by the setting that names them; run: a folder to which all nodes have to write.

    Raises ConfigError with all that is wrong; RuntimeError naming the nodes that do not answer in time.
    """
    with _marker(run) as marker:
        found = _ask(nodes, models, marker, timeout_s)
        own = report(models, marker)
    if problems := [*_problems(own, found, models, run)]:
        raise ConfigError("\n".join(problems))


def report(models: Mapping[str, Path], marker: Path | None) -> Report:
    """Of this process; runs on every node."""
    return Report(
        versions=package_versions(),
        models={setting: _digest(folder) for setting, folder in models.items()},
        sees_run=marker is None or (marker.is_file() and os.access(marker.parent, os.W_OK)),
    )


def _ask(
    nodes: Sequence[Node], models: Mapping[str, Path], marker: Path | None, timeout_s: float
) -> dict[str, Report | str]:
    """By address, the report or why there is none."""
    remote: Any = ray.remote
    ask = remote(num_cpus=0, max_retries=0)(report)
    calls = {
        ask.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False)).remote(
            models, marker
        ): node.address
        for node in nodes
    }
    _, silent = ray.wait(list(calls), num_returns=len(calls), timeout=timeout_s)
    if silent:
        raise RuntimeError(
            f"checking the nodes: no answer from {', '.join(calls[call] for call in silent)} within "
            f"{timeout_s:g} s (cluster.placement_timeout_s)"
        )
    return {address: _result(call) for call, address in calls.items()}


def _result(call: ray.ObjectRef) -> Report | str:
    try:
        answer: Report = ray.get(call, timeout=10.0)
    except (RayError, GetTimeoutError) as error:
        cause = getattr(error, "cause", None) or error
        return f"{type(cause).__name__}: {cause}".strip().splitlines()[-1]
    return answer


def _problems(
    own: Report, found: Mapping[str, Report | str], models: Mapping[str, Path], run: Path | None
) -> Iterator[str]:
    for address, theirs in found.items():
        if isinstance(theirs, str):
            yield (
                f"node {address}: rlstack cannot be run there ({theirs}); install the driver's environment "
                "on all nodes, at the same place"
            )
            continue
        for name in sorted({*own.versions, *theirs.versions}):
            here, there = own.versions.get(name), theirs.versions.get(name)
            if here != there:
                yield (
                    f"node {address}: {name} is {there or 'not there'}, and {here or 'not there'} for the "
                    "driver; install the same packages on all nodes"
                )
        for setting, folder in models.items():
            if theirs.models[setting] != own.models[setting]:
                how = "is not" if theirs.models[setting] == MISSING else "is another model"
                yield (
                    f"{setting} = {folder}: {how} on node {address}; put it on storage that all nodes share, "
                    "or at the same path on each"
                )
        if not theirs.sees_run:
            yield (
                f"run.dir: node {address} cannot write to {run}; give a folder on storage that all nodes "
                "share"
            )


@contextmanager
def _marker(run: Path | None) -> Iterator[Path | None]:
    if run is None:
        yield None
        return
    run.mkdir(parents=True, exist_ok=True)
    marker = run.absolute() / f".node-check-{secrets.token_hex(8)}"
    marker.touch()
    try:
        yield marker
    finally:
        marker.unlink(missing_ok=True)


def _digest(folder: Path) -> str:
    try:
        with open_file(folder, CONFIG) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError):
        return MISSING
