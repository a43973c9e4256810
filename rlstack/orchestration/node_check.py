"""The comparison of a cluster's nodes with the driver: packages, source, models, and the run folder.

All of it is compared before a role starts. What goes wrong later says less, as a rank that cannot unpickle
what another version wrote; or nothing: an engine whose node has other weights samples from them.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from rlstack.config.model_digests import Files, digests_of_model
from rlstack.errors import ConfigError
from rlstack.orchestration.node_files import (
    differences,
    digests_of_sources,
    digests_of_user,
    package_folder,
)
from rlstack.orchestration.placement import Node
from rlstack.telemetry.environment import package_versions

_NUM_NAMED = 3  # nodes with one and the same problem


class Report(NamedTuple):
    """The packages and files that a process on a node finds there."""

    versions: Mapping[str, str]
    models: Mapping[str, Files]  # by setting; empty where there is no such folder
    package: str  # the folder that rlstack is imported from
    sources: Files  # of rlstack and its kernels
    user_code: Files  # by absolute path
    sees_run: bool  # the file that the driver has put into the run's folder, and may write beside it


def check_nodes(
    nodes: Sequence[Node],
    *,
    models: Mapping[str, Path],
    run: Path | None,
    timeout_s: float,
    user_code: Sequence[Path] = (),
) -> None:
    """Compare the reports of `nodes`, which all are taken at the same time, with this process's own.

    models: folders by the setting that names them; run: a folder to which all nodes have to write.
    user_code: files of objective.loss.

    Raises ConfigError with all that is wrong; RuntimeError naming the nodes that do not answer in time.
    """
    with _marker(run) as marker:
        take = partial(report, models, user_code, marker)
        own, found = _reports(nodes, take, timeout_s)
    if problems := _by_nodes(_problems(own, found, models, run)):
        raise ConfigError("\n".join(problems))


def report(models: Mapping[str, Path], user_code: Sequence[Path], marker: Path | None) -> Report:
    """The report of this process; runs on every node."""
    return Report(
        versions=package_versions(),
        models={setting: digests_of_model(folder) for setting, folder in models.items()},
        package=str(package_folder()),
        sources=digests_of_sources(),
        user_code=digests_of_user(user_code),
        sees_run=marker is None or (marker.is_file() and os.access(marker.parent, os.W_OK)),
    )


def _reports(
    nodes: Sequence[Node], take: Callable[[], Report], timeout_s: float
) -> tuple[Report, dict[str, Report | str]]:
    """This process's own report, and by address those of the nodes, or why there is none."""
    remote: Any = ray.remote
    on_node = remote(num_cpus=0, max_retries=0)(_take)
    calls = {
        on_node.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False)).remote(
            take
        ): node.address
        for node in nodes
    }
    own = take()
    _, silent = ray.wait(list(calls), num_returns=len(calls), timeout=timeout_s)
    if silent:
        raise RuntimeError(
            f"checking the nodes: no answer from {', '.join(calls[call] for call in silent)} within "
            f"{timeout_s:g} s (cluster.placement_timeout_s)"
        )
    return own, {address: _result(call) for call, address in calls.items()}


def _take(take: Callable[[], Report]) -> Report:
    return take()


def _result(call: ray.ObjectRef) -> Report | str:
    try:
        answer: Report = ray.get(call, timeout=10.0)
    except (RayError, GetTimeoutError) as error:
        cause = getattr(error, "cause", None) or error
        return f"{type(cause).__name__}: {cause}".strip().splitlines()[-1]
    return answer


def _problems(
    own: Report, found: Mapping[str, Report | str], models: Mapping[str, Path], run: Path | None
) -> Iterator[tuple[str, str]]:
    """The address of a node and a problem of it."""
    for address, theirs in found.items():
        if isinstance(theirs, str):
            yield (
                address,
                f"rlstack cannot be run there ({theirs}); install the driver's environment on all nodes, at "
                "the same place",
            )
            continue
        problems = [*_of_packages(theirs, own), *_of_models(theirs, own, models)]
        if not theirs.sees_run:
            problems.append(
                f"run.dir: {run} cannot be written to; give a folder on storage that all nodes share"
            )
        yield from ((address, problem) for problem in problems)


def _of_packages(theirs: Report, own: Report) -> Iterator[str]:
    for name in sorted({*own.versions, *theirs.versions}):
        here, there = own.versions.get(name), theirs.versions.get(name)
        if here != there:
            yield (
                f"{name} is {there or 'not there'}, and {here or 'not there'} for the driver; install the "
                "same packages on all nodes"
            )
    if found := differences(theirs.sources, own.sources):
        yield (
            f"rlstack in {theirs.package} is of another source than the driver's in {own.package}: {found}; "
            "install the same commit on all nodes"
        )
    both = {file: own.user_code[file] for file in theirs.user_code if file in own.user_code}
    if found := differences(theirs.user_code, both):
        yield f"objective.loss: the node's files differ from the driver's: {found}; copy the driver's there"


def _of_models(theirs: Report, own: Report, models: Mapping[str, Path]) -> Iterator[str]:
    remedy = "put it on storage that all nodes share, or copy the driver's to the same path on each"
    for setting, folder in models.items():
        if own.models[setting] and not theirs.models[setting]:
            yield f"{setting} = {folder}: is not there; {remedy}"
        elif found := differences(theirs.models[setting], own.models[setting]):
            yield f"{setting} = {folder}: the node's files differ from the driver's: {found}; {remedy}"


def _by_nodes(problems: Iterator[tuple[str, str]]) -> list[str]:
    """A line for each problem, whatever the number of nodes that have it."""
    nodes: dict[str, list[str]] = {}
    for address, problem in problems:
        nodes.setdefault(problem, []).append(address)
    return [f"{_named(addresses)}: {problem}" for problem, addresses in nodes.items()]


def _named(addresses: Sequence[str]) -> str:
    if len(addresses) == 1:
        return f"node {addresses[0]}"
    more = f" and {len(addresses) - _NUM_NAMED} more" if len(addresses) > _NUM_NAMED else ""
    return f"nodes {', '.join(addresses[:_NUM_NAMED])}{more}"


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
