"""The checks of the nodes that a run will use, which the run and the doctor make before a role starts."""

from __future__ import annotations

from pathlib import Path

from rlstack.config.schema import RunConfig
from rlstack.orchestration.node_check import check_nodes
from rlstack.orchestration.node_files import files_of_user
from rlstack.orchestration.placement import Decision, Demand
from rlstack.orchestration.reachability import check_reachability


def check_cluster(
    config: RunConfig, demand: Demand, decision: Decision, *, run: Path, own_loss: object = None
) -> None:
    """Compare the nodes of `decision` with this process, which has joined their cluster, and connect them.

    run: a folder that ranks of the policy write below, where `demand` has any.
    own_loss: what objective.loss stands for.

    Raises ConfigError with all that is wrong, RuntimeError naming the nodes that do not answer in time.
    """
    models = {
        f"reward.models[{i}].path": Path(model.path)
        for i, model in enumerate(config.reward.models)
        if model.name in demand.reward_models
    }
    if demand.policy or demand.engines:
        models["policy.model"] = Path(config.policy.model)
    folder = run if demand.policy else None  # to which ranks write checkpoints and the model
    nodes = [bundle.node for bundle in decision.bundles]
    limit_s = config.cluster.placement_timeout_s
    user_code = [] if own_loss is None else files_of_user(own_loss)
    check_nodes(nodes, models=models, run=folder, timeout_s=limit_s, user_code=user_code)
    check_reachability(decision, config.cluster)
