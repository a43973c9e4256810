"""The connections between the nodes of a run, by its placement. Pure.

The policy's ranks meet at rank 0, and with the engines at the driver; both listen on a port of
cluster.port_range. gloo and NCCL then connect the nodes that hold policy and engines with each other, on
ports that the system gives them.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

from rlstack.orchestration.placement import Decision, Node, Slot


class Ports(StrEnum):
    """The ports that a listener takes."""

    store = "cluster.port_range"
    any = "net.ipv4.ip_local_port_range"


class Route(NamedTuple):
    """The nodes that connect to one listener."""

    listener: Node
    ports: Ports
    clients: tuple[Node, ...]


def routes(decision: Decision, driver: Node) -> list[Route]:
    """All connections between nodes that a run makes, Ray's own apart.

    A node is a client of its own listener in cluster.port_range, as its roles are, beside others.
    """
    policy, engines = (_nodes(decision, slots) for slots in (decision.policy, decision.engines))
    roles = list(dict.fromkeys([*policy, *engines]))
    if not policy:
        return []
    clients = {policy[0]: policy}
    if engines:
        clients[driver] = roles  # who are the policy's too, where rank 0 is on the driver's node
    found = [Route(node, Ports.store, tuple(its)) for node, its in clients.items() if its != [node]]
    for node in roles if len(roles) > 1 else []:
        found.append(Route(node, Ports.any, tuple(other for other in roles if other != node)))
    return found


def _nodes(decision: Decision, slots: Sequence[Slot]) -> list[Node]:
    return list(dict.fromkeys(decision.bundles[slot.bundle].node for slot in slots))
