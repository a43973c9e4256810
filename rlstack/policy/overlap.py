"""Exchanges between data-parallel ranks beside the computation, and where weights must be whole before use.

With `policy.overlap_param_gather` a step leaves each rank with its own part of the new weights. megatron-core
gathers the rest, bucket by bucket, in hooks before the modules of the next forward pass. Whatever else reads
weights calls `gather_weights` first.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch

from rlstack.policy.backend import DistributedDataParallel


def prepare_overlap(chunks: Sequence[DistributedDataParallel]) -> None:
    """Have megatron-core's schedules and hooks overlap what the chunks' settings ask for."""
    config, settings = chunks[0].config, chunks[0].ddp_config
    if settings.overlap_grad_reduce:
        gates = [chunk.no_sync for chunk in chunks]
        config.no_sync_func = gates if len(gates) > 1 else gates[0]
        for chunk in chunks:
            _count_fused_gradients(chunk)
    if settings.overlap_param_gather:
        for chunk in chunks:
            _gather_head_before_use(chunk)


def gather_weights(chunks: Sequence[DistributedDataParallel]) -> None:
    """Make this rank's weights those of the last step, all of them. Collective over the replicas.

    Costs nothing where they are whole: without overlap, and after a forward pass.
    """
    groups = [
        group for chunk in chunks if chunk.ddp_config.overlap_param_gather for group in chunk.bucket_groups
    ]
    for group in reversed(groups):
        if not group.param_gather_dispatched:
            group.start_param_sync()
    for group in groups:
        group.finish_param_sync(skip_next_bucket_dispatch=True)


def _gather_head_before_use(chunk: DistributedDataParallel) -> None:
    """Gather the weight that the logprob kernel reads without a call of its module, and so of its hook."""
    if not chunk.module.post_process:
        return
    group = chunk.param_to_bucket_group[chunk.module.head_weight()]
    chunk.module.before_head = partial(group.finish_param_sync, skip_next_bucket_dispatch=True)


def _count_fused_gradients(chunk: DistributedDataParallel) -> None:
    """Count a gradient that the logprob kernel has added to `main_grad` as there.

    The kernel returns none to autograd, where megatron-core's hook for the reduction demands one.
    """
    if not chunk.module.post_process:
        return
    weight = chunk.module.head_weight()

    def stand_in(gradients: Sequence[Any]) -> None:
        if gradients[0] is None:
            weight.grad_added_to_main_grad = True
            weight.grad = weight.detach()  # takes no memory; the hook drops it unread

    _accumulator(weight).register_prehook(stand_in)


def _accumulator(parameter: torch.nn.Parameter) -> Any:
    """Autograd's node that adds to `parameter.grad`; it lives as long as megatron-core's hooks on it."""
    function = parameter.expand_as(parameter).grad_fn
    assert function is not None
    return function.next_functions[0][0]
