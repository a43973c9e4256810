"""The nodes of the Ray cluster that this process has joined, and what of them nobody has reserved."""

from __future__ import annotations

import socket
from collections.abc import Collection

import ray
from ray._private import state

from rlstack.orchestration.placement import Node


def all_nodes() -> list[Node]:
    """Those that are alive, in the order of their addresses."""
    nodes = [
        Node(
            id=node["NodeID"],
            address=node["NodeManagerAddress"],
            num_gpus=int(node["Resources"].get("GPU", 0)),
            num_cores=int(node["Resources"].get("CPU", 0)),
        )
        for node in ray.nodes()
        if node["Alive"]
    ]
    return sorted(nodes, key=lambda node: (_numbers(node.address), node.id))


def free_nodes(nodes: list[Node]) -> list[Node]:
    """The same nodes with what Ray has left to give; a node that has not reported yet has everything."""
    left = state.available_resources_per_node()
    return [
        node._replace(
            num_gpus=int(left[node.id].get("GPU", 0)),
            num_cores=int(left[node.id].get("CPU", 0)),
        )
        if node.id in left
        else node
        for node in nodes
    ]


def lost_nodes(ids: Collection[str]) -> set[str]:
    """Those of the nodes `ids` that Ray has given up; it never takes one back, only a new one there."""
    return {*ids} - {node["NodeID"] for node in ray.nodes() if node["Alive"]}


def answers(node_id: str, *, timeout_s: float) -> bool:
    """Return True if Ray has not given the node up and its process accepts a connection in `timeout_s`."""
    for node in ray.nodes():
        if node["NodeID"] == node_id:
            where = (node["NodeManagerAddress"], node["NodeManagerPort"])
            try:
                socket.create_connection(where, timeout=timeout_s).close()
            except OSError:
                return False
            return True
    return False


def _numbers(address: str) -> tuple[int, ...]:
    """So that 10.0.0.9 comes before 10.0.0.10."""
    return tuple(int(part) if part.isdigit() else 0 for part in address.split("."))
