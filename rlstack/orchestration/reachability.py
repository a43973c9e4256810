"""Trial connections between the nodes of a cluster, on the ports that the run will take.

One process on each node listens for seconds, on the node's own address, and connects to the others; what a
firewall drops or refuses is found before a role starts, with both nodes and the port.
"""

from __future__ import annotations

import asyncio
import os
from asyncio import Server
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from rlstack.config.schema import Cluster
from rlstack.errors import ConfigError
from rlstack.orchestration import handshake
from rlstack.orchestration.handshake import Words
from rlstack.orchestration.home import interfaces
from rlstack.orchestration.nodes import all_nodes
from rlstack.orchestration.placement import Decision, Node
from rlstack.orchestration.routes import Ports, Route, routes

R = TypeVar("R")

LIMIT_S = 5.0  # for a connection and the words over it, all nodes at once
INTERFACES = "GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"


class Door(NamedTuple):
    """A listener that is open."""

    node: Node
    ports: Ports
    host: str
    port: int


class Failure(NamedTuple):
    """A connection that did not come about."""

    client: Node
    door: Door
    reason: str


def check_reachability(decision: Decision, settings: Cluster) -> None:
    """Try every connection between nodes that the run will make, all of them at once.

    Raises ConfigError naming the nodes and the ports that do not come together; RuntimeError naming the
    nodes that give no answer within cluster.placement_timeout_s.
    """
    planned = routes(decision, _driver())
    nodes = {node.id: node for route in planned for node in (route.listener, *route.clients)}
    if not nodes:
        return
    variable = INTERFACES[decision.use_gpus]
    remote: Any = ray.remote
    prober, words = remote(num_cpus=0, max_restarts=0)(Prober), Words.new()
    probers = {
        node: prober.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False)).remote(
            words, node.address, variable, settings.env.get(variable)
        )
        for node in nodes.values()
    }
    try:
        failures, problems = _try(planned, probers, settings)
    finally:
        for each in probers.values():
            ray.kill(each, no_restart=True)
    if problems := [*problems, *lines(failures, settings.port_range)]:
        raise ConfigError("\n".join(problems))


class Prober:
    """A Ray actor that listens on its node and connects to the other nodes."""

    def __init__(self, words: Words, address: str, variable: str, names: str | None) -> None:
        """names: of network interfaces for `variable`, one of INTERFACES; None: as this node's has them."""
        self._words = words
        self._address = address
        names = names or os.environ.get(variable)
        self._collectives = address_of(names, interfaces(), address) if names else address
        self._servers: list[Server] = []

    async def listen(
        self, ports: Sequence[Ports], port_range: Sequence[int] | None
    ) -> list[tuple[str, int] | str]:
        """For each of `ports` where it now listens, or why it does not; empty: where that is not known."""
        opened: list[tuple[str, int] | str] = []
        for each in ports:
            host, of_range = (self._address, port_range) if each is Ports.store else (self._collectives, None)
            if host is None:
                opened.append("")
                continue
            try:
                server = await handshake.answer(host, of_range, self._words, limit_s=LIMIT_S)
            except RuntimeError as error:
                opened.append(str(error))
                continue
            self._servers.append(server)
            opened.append((host, handshake.port_of(server)))
        return opened

    async def connect(self, doors: Sequence[tuple[str, int]]) -> list[str | None]:
        """Return why this node cannot reach each of `doors`, as handshake.call does."""
        calls = (handshake.call(host, port, self._words, limit_s=LIMIT_S) for host, port in doors)
        return list(await asyncio.gather(*calls))


def address_of(names: str, found: Mapping[str, Sequence[str]], address: str) -> str | None:
    """The address on which gloo or NCCL will listen, of the same family as `address`; None: not known.

    names: as GLOO_SOCKET_IFNAME or NCCL_SOCKET_IFNAME has them: interfaces, or what they begin with, all but
    those after a ^, exactly those after a =.
    found: the addresses of this node by interface.
    """
    if names.startswith("^"):
        return None
    wanted = [name for name in names.removeprefix("=").split(",") if name]
    for interface in sorted(found, key=lambda interface: interface not in wanted):
        is_wanted = interface in wanted or (names[0] != "=" and interface.startswith(tuple(wanted)))
        for each in found[interface] if is_wanted else ():
            if (":" in each) == (":" in address):
                return each
    return None


def lines(failures: Iterable[Failure], port_range: Sequence[int] | None) -> Iterator[str]:
    """One for each listener that somebody does not reach, and why; with the remedy."""
    by_cause: dict[tuple[Door, str], list[str]] = {}
    for client, door, reason in failures:
        by_cause.setdefault((door, reason), []).append(client.address)
    for (door, reason), clients in by_cause.items():
        who = f"node{'s' if len(clients) > 1 else ''} {', '.join(clients)}"
        if door.ports is Ports.store and port_range is not None:
            whose = "cluster.port_range"
            remedy = f"open the ports {port_range[0]} to {port_range[1]} between the nodes"
        else:
            null = "; so do the stores, with cluster.port_range = null" if door.ports is Ports.store else ""
            whose = f"gloo and NCCL take any of {Ports.any}{null}"
            remedy = "open these ports between the nodes"
        yield f"{who} cannot connect to {door.host} port {door.port} ({whose}): {reason}; {remedy}"


def _driver() -> Node:
    own = ray.get_runtime_context().get_node_id()
    return next(node for node in all_nodes() if node.id == own)


def _try(
    planned: Sequence[Route], probers: Mapping[Node, Any], settings: Cluster
) -> tuple[list[Failure], list[str]]:
    """The connections that failed, and what else is wrong."""
    timeout_s, problems = settings.placement_timeout_s, list[str]()
    listening = {node: [route for route in planned if route.listener == node] for node in probers}
    opened: dict[Node, list[tuple[str, int] | str]] = _ask(
        {
            node: probers[node].listen.remote([route.ports for route in its], settings.port_range)
            for node, its in listening.items()
        },
        timeout_s,
    )
    doors: dict[Node, list[Door]] = {node: [] for node in probers}
    for node, its in listening.items():
        for route, where in zip(its, opened[node], strict=True):
            if isinstance(where, str):
                problems += [f"node {node.address}: {where}"] if where else []
                continue
            for client in route.clients:
                doors[client].append(Door(node, route.ports, *where))
    found: dict[Node, list[str | None]] = _ask(
        {
            node: probers[node].connect.remote([(door.host, door.port) for door in its])
            for node, its in doors.items()
        },
        timeout_s,
    )
    failures = [
        Failure(node, door, reason)
        for node, its in doors.items()
        for door, reason in zip(its, found[node], strict=True)
        if reason is not None
    ]
    return failures, problems


def _ask(calls: Mapping[Node, ray.ObjectRef[R]], timeout_s: float) -> dict[Node, R]:
    _, silent = ray.wait(list(calls.values()), num_returns=len(calls), timeout=timeout_s)
    if silent:
        addresses = [node.address for node, call in calls.items() if call in silent]
        raise RuntimeError(
            f"connecting the nodes with each other: no answer from {', '.join(addresses)} within "
            f"{timeout_s:g} s (cluster.placement_timeout_s)"
        )
    return {node: _result(node, call) for node, call in calls.items()}


def _result(node: Node, call: ray.ObjectRef[R]) -> R:
    try:
        return ray.get(call, timeout=10.0)
    except RayError as error:
        cause = str(getattr(error, "cause", None) or error).strip().splitlines()[-1]
        raise RuntimeError(
            f"connecting the nodes with each other: node {node.address} failed: {cause}"
        ) from error
