"""Looking at the machine, each probe for itself: one that fails is told of, and the others go on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from rlstack.doctor import LIMIT_S
from rlstack.doctor.catalogue import CLUSTER_CHECKS, chosen, judge
from rlstack.doctor.checks.imports import statements
from rlstack.doctor.facts import Cluster, Facts, Settings
from rlstack.doctor.finding import Finding
from rlstack.doctor.probes import (
    cluster,
    disk,
    environment,
    gpus,
    imports,
    machine,
    network,
    packages,
    ray,
    settings,
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    config: Path | None = None
    overrides: tuple[str, ...] = ()
    only: tuple[str, ...] = ()  # names or subjects; none: all
    skip: tuple[str, ...] = ()
    start: bool = False  # whether a Ray is started and ended
    limit_s: float = LIMIT_S  # of each import, and of starting Ray

    def __post_init__(self) -> None:
        """Raises ValueError for what cannot be asked for."""
        chosen(self.only, self.skip)
        if not self.limit_s >= 1:
            raise ValueError(f"--timeout {self.limit_s:g}: at least 1 second is accepted")
        if self.config is not None and not self.config.is_file():
            raise ValueError(f"{self.config}: there is no such file; give the path of a YAML file")


def examine(request: Request, *, say: Callable[[str], None] = lambda text: None) -> list[Finding]:
    """What is found; say: is told what takes its time."""
    names = chosen(request.only, request.skip)
    return judge(_look(request, names, say), names)


def _look(request: Request, names: Sequence[str], say: Callable[[str], None]) -> Facts:
    failures: list[str] = []

    def ask(what: str, probe: Callable[[], T], otherwise: T) -> T:
        try:
            return probe()
        except Exception as error:  # whatever it is, the other findings are wanted
            failures.append(f"the {what} could not be looked at ({type(error).__name__}: {error})")
            return otherwise

    nothing, limit_s = Facts(), request.limit_s
    say("looking at the machine")
    asked = None
    if request.config is not None:
        asked = ask("configuration", partial(_read, request.config, request, names), None)
    joined = None
    if asked is not None and asked.joins_cluster and not CLUSTER_CHECKS.isdisjoint(names):
        say("joining the cluster")
        joined = ask("cluster", partial(_join, asked, request), None)
    start_within_s = limit_s if request.start and "ray-start" in names else None
    facts = Facts(
        machine=ask("machine", machine.look, nothing.machine),
        packages=ask("packages", packages.look, nothing.packages),
        gpus=ask(
            "GPUs",
            lambda: gpus.look(torch_within_s=limit_s if "nccl" in names else None),
            nothing.gpus,
        ),
        environment=ask("environment", environment.look, nothing.environment),
        network=ask("network", lambda: network.look(asked), nothing.network),
        ray=ask("Ray", lambda: ray.look(start_within_s=start_within_s), nothing.ray),
        disk=ask("disk", lambda: disk.look(asked), nothing.disk),
        settings=asked,
        cluster=joined,
    )
    found = statements(has_gpus=facts.has_gpus)
    wanted = {name: code for name, code in found.items() if name in names}
    if wanted:
        look = partial(imports.look, wanted, limit_s=limit_s, say=say)
        facts = replace(facts, imports=ask("imports", look, nothing.imports))
    return replace(facts, failures=tuple(failures))


def _read(config: Path, request: Request, names: Sequence[str]) -> Settings:
    whole = not {"settings", "model"}.isdisjoint(names)
    joins = CLUSTER_CHECKS.isdisjoint(names)  # otherwise it is joined for these, once
    return settings.look(config, request.overrides, whole=whole, joins=joins, limit_s=request.limit_s)


def _join(asked: Settings, request: Request) -> Cluster | None:
    return cluster.look(Path(asked.path), request.overrides, asked, limit_s=request.limit_s)
