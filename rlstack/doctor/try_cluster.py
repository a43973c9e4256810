"""Join the cluster that a configuration names, compare its nodes, and leave.

python -m rlstack.doctor.try_cluster [--join-only] CONFIG [KEY=VALUE ...]

Its last line on standard output is a JSON object with the fields of rlstack.doctor.facts.Cluster.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlstack.config.load import load_config
from rlstack.config.schema import RunConfig
from rlstack.errors import ConfigError
from rlstack.losses.own import load_loss
from rlstack.orchestration.cluster_check import check_cluster
from rlstack.orchestration.nodes import all_nodes, free_nodes
from rlstack.orchestration.placement import Demand, Node, place, roles_by_bundle
from rlstack.orchestration.ray_session import end_ray, start_ray
from rlstack.preflight.machine import nearest_folder
from rlstack.telemetry.run_dir import folder_of

JOIN_ONLY = "--join-only"  # for settings that `rlstack train` refuses: where their run would be is not known


def main(arguments: Sequence[str]) -> None:
    """Print, as JSON, how the cluster of CONFIG is found."""
    words = [word for word in arguments if word != JOIN_ONLY]
    config = load_config(Path(words[0]), words[1:])
    print(json.dumps(look(config, join_only=JOIN_ONLY in arguments)), flush=True)
    os._exit(0)  # whatever threads Ray has left


def look(config: RunConfig, *, join_only: bool) -> dict[str, Any]:
    """The fields of rlstack.doctor.facts.Cluster; nothing of the cluster's or the run's is changed."""
    try:
        start_ray(config.cluster)
    except ConfigError as error:
        return {"join_problem": str(error)}
    try:
        nodes = all_nodes()
        free = free_nodes(nodes)
        found = {"nodes": [_described(node, left) for node, left in zip(nodes, free, strict=True)]}
        return found if join_only else found | _fit(config, nodes, free)
    finally:
        end_ray([])


def _described(node: Node, left: Node) -> dict[str, Any]:
    return {
        "address": node.address,
        "num_cores": node.num_cores,
        "num_gpus": node.num_gpus,
        "free_cores": left.num_cores,
        "free_gpus": left.num_gpus,
    }


def _fit(config: RunConfig, nodes: Sequence[Node], free: Sequence[Node]) -> dict[str, Any]:
    """The places of the roles once all of the cluster is free, and what is wrong with the nodes there."""
    demand, use_gpus = Demand.of(config), any(node.num_gpus for node in nodes)
    ranks_per_core = config.cluster.ranks_per_core
    try:
        decision = place(demand, nodes, use_gpus=use_gpus, ranks_per_core=ranks_per_core)
    except ConfigError as error:
        return {"place_problem": str(error)}
    try:
        place(demand, free, use_gpus=use_gpus, ranks_per_core=ranks_per_core)
        is_free = True
    except ConfigError:
        is_free = False
    used = [bundle.node for bundle in decision.bundles]
    roles = zip(used, roles_by_bundle(decision), strict=True)
    found: dict[str, Any] = {
        "places": [[node.address, of_node] for node, of_node in roles],
        "is_free": is_free,
    }
    loss = config.objective.loss
    try:
        own = None if loss is None else load_loss(loss, None)
        check_cluster(config, demand, decision, run=nearest_folder(folder_of(config)), own_loss=own)
    except (ConfigError, RuntimeError) as error:
        return {**found, "node_problems": str(error).splitlines()}
    return found


if __name__ == "__main__":
    main(sys.argv[1:])
