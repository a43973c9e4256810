"""How the policy's ranks share a model: their number, and the layers that each of them holds. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

from rlstack.config.schema import Policy


def num_policy_ranks(policy: Policy) -> int:
    """Tensor x pipeline x context x data; a virtual pipeline takes no more of them."""
    return policy.tensor_parallel * policy.pipeline_parallel * policy.context_parallel * policy.data_parallel


def data_parallel_rank(rank: int, policy: Policy) -> int:
    """The data-parallel rank of `rank`; megatron-core counts tensor, context, data, then pipeline ranks."""
    return rank // (policy.tensor_parallel * policy.context_parallel) % policy.data_parallel


def micro_batch_multiple(policy: Policy) -> int:
    """What the number of a rank's micro-batches has to be a multiple of.

    Interleaved stages exchange as many in a row as there are stages: megatron-core,
    pipeline_parallel/schedules.py, forward_backward_pipelining_with_interleaving.
    """
    return policy.pipeline_parallel if policy.virtual_pipeline > 1 else 1


def policy_layers(policy: Policy, num_layers: int) -> list[list[range]]:
    """`stage_layers` as `policy` asks for them."""
    return stage_layers(
        num_layers,
        num_stages=policy.pipeline_parallel,
        chunks_per_stage=policy.virtual_pipeline,
        sizes=policy.pipeline_layers,
    )


def stage_layers(
    num_layers: int, *, num_stages: int = 1, chunks_per_stage: int = 1, sizes: Sequence[int] | None = None
) -> list[list[range]]:
    """The layers, counted from 0, of each pipeline stage, one range per chunk: [stage][chunk].

    In the model's order chunk i is of stage i % num_stages, so that a micro-batch goes round all stages
    `chunks_per_stage` times. `sizes` are the chunks' numbers of layers in that order; None: equal ones.
    """
    num_chunks = num_stages * chunks_per_stage
    sizes = sizes or [num_layers // num_chunks] * num_chunks
    assert len(sizes) == num_chunks and sum(sizes) == num_layers, "refused by the checks of the settings"
    chunks = [range(first, end) for first, end in pairwise(accumulate(sizes, initial=0))]
    return [chunks[stage::num_stages] for stage in range(num_stages)]
