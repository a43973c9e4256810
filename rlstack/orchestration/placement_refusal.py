"""What to say where a run does not fit the nodes. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rlstack.orchestration.placement import Demand, Group


def refusal(demand: Demand, capacities: Sequence[int], *, unit: str) -> str:
    """Why `demand` cannot be placed on nodes of these capacities, in `unit`s, and what to change."""
    largest = max(capacities, default=0)
    copies = [copy for copies in demand.reward_models.values() for copy in copies]
    groups = [*demand.policy, *demand.engines, *copies]
    if (widest := max(groups, key=lambda group: group.size)).size > largest:
        return _too_wide(widest, largest, unit)
    if demand.colocated and unit == "GPU":
        if demand.num_policy_ranks > largest:
            return (
                f"cluster.placement = colocated: the policy's {demand.num_policy_ranks} ranks need as many "
                "GPUs of one node, through whose memory the engines get the weights, and the largest node "
                f"has {largest}; set it to split, or lower policy.data_parallel or policy.pipeline_parallel"
            )
        if demand.num_engine_ranks > demand.num_policy_ranks:
            return (
                f"rollout.engines x tensor_parallel = {demand.num_engine_ranks}: at most "
                f"{demand.num_policy_ranks} is accepted with cluster.placement = colocated, for the engines "
                "are on the GPUs of the policy's ranks; lower one of them, or set cluster.placement=split"
            )
    return _too_few(demand, capacities, unit)


def _too_wide(group: Group, largest: int, unit: str) -> str:
    return (
        f"{group.setting} = {group.size}: at most {largest} is accepted here, for these ranks have to be on "
        f"one node, and the largest has room for {_count(largest, unit)}; lower it"
    )


def _too_few(demand: Demand, capacities: Sequence[int], unit: str) -> str:
    shared = demand.colocated and unit == "GPU"
    num_copies = sum(copy.size for copies in demand.reward_models.values() for copy in copies)
    asked = {
        "the policy's ranks": demand.num_policy_ranks,
        "rollout.engines x tensor_parallel": 0 if shared else demand.num_engine_ranks,
        "reward.models' num_actors x tensor_parallel": num_copies,
    }
    parts = [f"{what} = {count}" for what, count in asked.items() if count]
    needed, there = sum(asked.values()), sum(capacities)
    sizes = Counter(capacities)
    nodes = " + ".join(f"{sizes[size]} x {size}" for size in sorted(sizes, reverse=True))
    remedy = (
        "lower one of them (policy.data_parallel, rollout.engines), or give a larger cluster as "
        "cluster.address"
    )
    if unit == "process":
        remedy += ", or raise cluster.ranks_per_core"
    elif not demand.colocated and demand.policy and demand.engines:
        remedy += ", or set cluster.placement=colocated for one node whose GPUs they share"
    if needed > there:
        return (
            f"{' and '.join(parts)}: room for {_count(needed, unit)} is needed, and there is room for "
            f"{there} ({nodes}); {remedy}"
        )
    return (
        f"{' and '.join(parts)}: room for {_count(needed, unit)} is needed, and there is enough in all, but "
        f"not in pieces that tensor-parallel groups fit into whole ({nodes}); make them divide the nodes' "
        f"sizes, or {remedy}"
    )


def _count(number: int, unit: str) -> str:
    if number == 1:
        return f"1 {unit}"
    return f"{number} {'processes' if unit == 'process' else unit + 's'}"
