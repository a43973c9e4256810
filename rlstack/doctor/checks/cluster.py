"""The cluster that a run would join, and its nodes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from rlstack.doctor.checks.config import refused
from rlstack.doctor.facts import ClusterNode, Facts
from rlstack.doctor.finding import Verdict, note, ok, problem

MANY = 8  # nodes, above which those that are alike share a line
NODES_REMEDY = "see whether its nodes are up and reach each other, and whether others use all of them"


def joined(facts: Facts) -> Iterator[Verdict]:
    """Check that this machine and this user get into the cluster."""
    found = facts.cluster
    if found is None:
        return
    if found.error is not None:
        yield problem(f"the cluster could not be looked at: {found.error}", NODES_REMEDY)
    elif found.join_problem is not None:
        for line in found.join_problem.splitlines():
            yield refused(line)
    else:
        yield ok(f"joined and left again; it has {_count(len(found.nodes), 'node')}")


def nodes(facts: Facts) -> Iterator[Verdict]:
    """The nodes, with what Ray counts of each."""
    found = facts.cluster.nodes if facts.cluster is not None else ()
    if len(found) <= MANY:
        for node in found:
            yield ok(f"{node.address}: {_resources(node)}")
        return
    alike = Counter(map(_resources, found))
    for resources, count in alike.items():
        first = next(node.address for node in found if _resources(node) == resources)
        yield ok(f"{count} x {resources} ({first}{' and others' if count > 1 else ''})")


def places(facts: Facts) -> Iterator[Verdict]:
    """Check that the run fits the nodes, and list where its roles would be."""
    found = facts.cluster
    if found is None:
        return
    if found.place_problem is not None:
        yield refused(found.place_problem)
    for address, roles in found.places:
        yield ok(f"{address}: {_shown(roles)}")
    if not found.is_free:
        yield note(
            "others hold a part of what the run needs",
            "wait until it is free, which a run does for cluster.placement_timeout_s",
        )


def node_check(facts: Facts) -> Iterator[Verdict]:
    """Check that the nodes that the run would use have what it needs there."""
    found = facts.cluster
    if found is None:
        return
    for line in found.node_problems:
        yield refused(line) if "; " in line else problem(line, NODES_REMEDY)
    if found.places and not found.node_problems:
        yield ok(f"{_count(len(found.places), 'node')}: nothing that a run would refuse")


def _resources(node: ClusterNode) -> str:
    cores = f"{node.free_cores} of {_count(node.num_cores, 'core')}"
    return f"{cores} and {node.free_gpus} of {_count(node.num_gpus, 'GPU')} free"


def _shown(roles: Sequence[str]) -> str:
    return ", ".join(roles[:MANY]) + (f" and {len(roles) - MANY} more" if len(roles) > MANY else "")


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
