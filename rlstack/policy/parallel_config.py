"""What a layout, and what is recomputed, mean as megatron-core's settings."""

from __future__ import annotations

from typing import Any

from rlstack.config.parallel import policy_layers
from rlstack.config.schema import Policy, Recompute
from rlstack.policy.backend import on_gpu

_RECOMPUTE: dict[Recompute, dict[str, Any]] = {
    Recompute.none: {},
    # The attention itself keeps nothing that its neighbours would not: neither here nor in Transformer Engine
    # are there scores.
    Recompute.selective: {"recompute_granularity": "selective", "recompute_modules": ["mlp"]},
    Recompute.full: {
        "recompute_granularity": "full",
        "recompute_method": "uniform",
        "recompute_num_layers": 1,
    },
}


def parallel_settings(policy: Policy, *, num_layers: int) -> dict[str, Any]:
    """Keywords of TransformerConfig."""
    is_virtual = policy.virtual_pipeline > 1
    return {
        "tensor_model_parallel_size": policy.tensor_parallel,
        "pipeline_model_parallel_size": policy.pipeline_parallel,
        "virtual_pipeline_model_parallel_size": policy.virtual_pipeline if is_virtual else None,
        "pipeline_model_parallel_layout": _pipeline_layout(policy, num_layers),
        "context_parallel_size": policy.context_parallel,
        "cp_comm_type": "p2p",
        "sequence_parallel": policy.sequence_parallel and policy.tensor_parallel > 1,
        # Packed micro-batches differ in length; this combination is demanded of dense models too.
        "variable_seq_lengths": True,
        "moe_token_dispatcher_type": "alltoall",
        # With two interleaved stages both neighbours are the same rank: sent together, what goes to the next
        # and what goes to the previous one would change places, without an error.
        "overlap_p2p_comm": is_virtual,
        "batch_p2p_comm": not is_virtual,
        # gloo would still be sending the buffer that is freed.
        "deallocate_pipeline_outputs": on_gpu(),
        **_RECOMPUTE[policy.recompute],
        **_some_layers(policy),
    }


def _some_layers(policy: Policy) -> dict[str, Any]:
    """Of full recomputation: the first layers of each chunk, and not the others."""
    if policy.recompute is not Recompute.full or policy.recompute_layers is None:
        return {}
    return {"recompute_method": "block", "recompute_num_layers": policy.recompute_layers}


def _pipeline_layout(policy: Policy, num_layers: int) -> list[list[str]]:
    """The kinds of layers of each chunk, in the model's order."""
    stages = policy_layers(policy, num_layers)
    chunks = [["decoder"] * len(stage[index]) for index in range(policy.virtual_pipeline) for stage in stages]
    chunks[0].insert(0, "embedding")
    chunks[-1].append("loss")
    return chunks
