"""The checks by name, which stays the same: scripts and docs/how-to/doctor.md speak of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from functools import partial
from typing import NamedTuple

from rlstack.doctor.checks import cluster, config, disk, gpus, imports, machine, packages, surroundings
from rlstack.doctor.facts import Facts
from rlstack.doctor.finding import Finding, Subject, Verdict, problem

Judge = Callable[[Facts], Iterator[Verdict]]


class Check(NamedTuple):
    subject: Subject
    judge: Judge


def _could_not_look(facts: Facts) -> Iterator[Verdict]:
    for failure in facts.failures:
        yield problem(failure, "report it as a bug, with this output")


CHECKS: Mapping[str, Check] = {
    "platform": Check(Subject.machine, machine.platform),
    "python": Check(Subject.machine, machine.python),
    "cores": Check(Subject.machine, machine.cores),
    "memory": Check(Subject.machine, machine.memory),
    "shared-memory": Check(Subject.machine, machine.shared_memory),
    "open-files": Check(Subject.machine, machine.open_files),
    "process-limit": Check(Subject.machine, machine.process_limit),
    "c-compiler": Check(Subject.machine, machine.c_compiler),
    "libnuma": Check(Subject.machine, machine.libnuma),
    "clock": Check(Subject.machine, machine.clock),
    "could-not-look": Check(Subject.machine, _could_not_look),
    "versions": Check(Subject.packages, packages.versions),
    "packages-missing": Check(Subject.packages, packages.missing),
    "version-conflict": Check(Subject.packages, packages.version_conflict),
    "torch-build": Check(Subject.packages, packages.torch_build),
    "torch-companions": Check(Subject.packages, packages.torch_companions),
    "vllm-build": Check(Subject.packages, packages.vllm_build),
    "package-shadowed": Check(Subject.packages, packages.shadowed),
    "optional-packages": Check(Subject.packages, packages.optional),
    **{
        name: Check(Subject.imports, partial(imports.imported, name))
        for name in imports.statements(has_gpus=True)
    },
    "gpu-driver": Check(Subject.gpus, gpus.driver),
    "gpus-hidden": Check(Subject.gpus, gpus.hidden),
    "gpu-memory": Check(Subject.gpus, gpus.memory),
    "cuda-version": Check(Subject.gpus, gpus.cuda_version),
    "nccl": Check(Subject.gpus, gpus.use),
    "ray-address": Check(Subject.environment, surroundings.ray_address),
    "proxies": Check(Subject.environment, surroundings.proxies),
    "vllm-variables": Check(Subject.environment, surroundings.vllm_variables),
    "threads": Check(Subject.environment, surroundings.threads),
    "loopback": Check(Subject.network, surroundings.loopback),
    "port-in-use": Check(Subject.network, surroundings.port_in_use),
    "ray-running": Check(Subject.ray, surroundings.ray_running),
    "ray-leftovers": Check(Subject.ray, surroundings.ray_leftovers),
    "ray-token": Check(Subject.ray, surroundings.ray_token),
    "ray-folder": Check(Subject.ray, surroundings.ray_folder),
    "ray-start": Check(Subject.ray, surroundings.ray_start),
    "cluster-join": Check(Subject.ray, cluster.joined),
    "cluster-nodes": Check(Subject.ray, cluster.nodes),
    "cluster-places": Check(Subject.ray, cluster.places),
    "cluster-check": Check(Subject.ray, cluster.node_check),
    "run-folder": Check(Subject.disk, disk.run_folder),
    "disk-space": Check(Subject.disk, disk.space),
    "temporary-folder": Check(Subject.disk, disk.temporary_folder),
    "temporary-space": Check(Subject.disk, disk.temporary_space),
    "settings": Check(Subject.config, config.settings),
    "model": Check(Subject.config, config.model),
}


# Those for which the cluster that a configuration names is joined.
CLUSTER_CHECKS = frozenset(name for name in CHECKS if name.startswith("cluster-"))


def chosen(only: Sequence[str], skip: Sequence[str]) -> list[str]:
    """The names of the checks to run, each of `only` and `skip` being a check or a subject.

    Raises ValueError for one that is neither.
    """
    known = [*CHECKS, *Subject]
    for word in (*only, *skip):
        if word not in known:
            close = get_close_matches(word, known, n=1)
            hint = (
                f"did you mean {close[0]}?" if close else "docs/how-to/doctor.md has the names of the checks"
            )
            subjects = " | ".join(Subject)
            raise ValueError(f"{word!r}: the name of a check or {subjects} is accepted; {hint}")
    return [
        name
        for name, check in CHECKS.items()
        if (not only or name in only or check.subject in only)
        and name not in skip
        and check.subject not in skip
    ]


def judge(facts: Facts, names: Sequence[str]) -> list[Finding]:
    """What the checks `names` find, in their order; most say nothing of what is not there."""
    return [
        Finding(
            name=name,
            subject=CHECKS[name].subject,
            level=verdict.level,
            found=verdict.found,
            remedy=verdict.remedy,
        )
        for name in names
        for verdict in CHECKS[name].judge(facts)
    ]
