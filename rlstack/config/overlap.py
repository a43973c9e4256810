"""The exchanges between data-parallel ranks that run while a rank computes. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rlstack.config.schema import Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """Of the ranks that hold the same weights, of which there are data_parallel x context_parallel."""

    grad_reduce: bool  # gradients are reduced bucket by bucket during the backward pass
    param_gather: bool  # stepped weights are gathered bucket by bucket during the next forward pass
    bucket_size: int | None  # elements of a bucket, at least; None = megatron-core's choice


def overlap_of(policy: Policy, *, on_gpu: bool) -> Overlap:
    """Resolve null in `policy.overlap_*`: on with GPUs and several replicas, off otherwise.

    On the CPU the exchange takes the cores that it would hide behind.
    """
    automatic = on_gpu and num_replicas(policy) > 1
    wanted = policy.overlap_grad_reduce
    grad_reduce = automatic if wanted is None else wanted
    wanted = policy.overlap_param_gather
    param_gather = automatic and grad_reduce if wanted is None else wanted
    return Overlap(grad_reduce=grad_reduce, param_gather=param_gather, bucket_size=policy.overlap_bucket_size)


def num_replicas(policy: Policy) -> int:
    """Ranks that hold the same weights, and share the optimiser's state."""
    return policy.data_parallel * policy.context_parallel


def overlap_problems(policy: Policy) -> Iterator[str]:
    """Overlap that has nothing to overlap, or lacks what it builds on; one line each."""
    asked = [key for key in ("overlap_grad_reduce", "overlap_param_gather") if getattr(policy, key)]
    if num_replicas(policy) == 1:
        for key in asked:
            yield (
                f"policy.{key} = true: null or false is accepted with policy.data_parallel x "
                "context_parallel = 1, where no rank exchanges gradients or weights; set it to null"
            )
    elif policy.overlap_param_gather and policy.overlap_grad_reduce is False:
        yield (
            "policy.overlap_param_gather = true: null or false is accepted with policy.overlap_grad_reduce "
            "= false, which leaves one bucket of all weights; set policy.overlap_grad_reduce=true"
        )
