"""What of this rank goes into a checkpoint, as megatron-core's sharded state: it fits every layout.

The weights of the reference and of the engines' version are there under prefixes, where they are not the
policy's own. The optimiser's state is there as if it were not distributed, one tensor per parameter.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import accumulate
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from rlstack.policy.backend import (
    MegatronOptimizer,
    ShardedTensor,
    ShardedTensorFactory,
    parallel_state,
)
from rlstack.policy.model import PolicyModel
from rlstack.policy.random_state import random_states

REFERENCE, SERVED = "reference", "served"


def sharded_weights(model: PolicyModel, weights: Mapping[str, Sequence[Tensor]]) -> dict[str, Any]:
    """`weights`, by prefix in the file ("": the policy's), with the place of each tensor in the whole model.

    They come in the order of the model's parameters, and leave by prefix and name. Transformer Engine's extra
    state is left out: it holds scales of FP8.
    """
    names = [name for name, _ in model.named_parameters()]
    places = {
        name: entry
        for name, entry in model.sharded_state_dict().items()
        if isinstance(entry, ShardedTensor | ShardedTensorFactory)
    }
    return {
        prefix: {
            name: replace(places[name], key=f"{prefix}.{places[name].key}".lstrip("."), data=tensor)
            for name, tensor in zip(names, tensors, strict=True)
        }
        for prefix, tensors in weights.items()
    }


def sharded_optimizer(optimizer: MegatronOptimizer, model: PolicyModel, *, is_loading: bool) -> Any:
    """Collective. The tensors are copies in host memory; `is_loading`: without their content."""
    metadata = {
        "distrib_optim_sharding_type": "fully_reshardable",
        "dp_cp_group": parallel_state.get_data_parallel_group(with_context_parallel=True),
        "chained_optim_avoid_prefix": True,
    }
    _fill_moments(optimizer)
    with _packed_buckets(optimizer):
        return optimizer.sharded_state_dict(
            model.sharded_state_dict(metadata=metadata), is_loading=is_loading, metadata=metadata
        )


def sharded_random_states() -> dict[str, Any]:
    """Of every rank; they mean something to the same ranks in the same layout only."""
    place = (0, dist.get_rank(), dist.get_world_size())
    return {
        name: ShardedTensor.from_rank_offsets(f"random.{name}", state[None], place)
        for name, state in random_states().items()
    }


def extra_weights(
    copies: Mapping[str, tuple[int, Sequence[Tensor]]], *, version: int
) -> dict[str, Sequence[Tensor]]:
    """Those of `copies`, by prefix with their versions, that are neither the policy's `version` nor each
    other's: the first of them stands for all of its version.
    """
    known, extra = {version}, {}
    for prefix, (held, tensors) in copies.items():
        if held not in known:
            known.add(held)
            extra[prefix] = tensors
    return extra


@contextmanager
def _packed_buckets(optimizer: MegatronOptimizer) -> Iterator[None]:
    """Have megatron-core find a parameter where it lies in the state that it gathers.

    That state is without the padding at the ends of buckets, but the places of parameters count it. A tied
    embedding under pipeline parallelism has a bucket of its own, and would be written shifted.
    """
    buffers = optimizer.chained_optimizers[0].buffers
    places = [buffer.param_index_map for buffer in buffers]
    for buffer in buffers:
        starts = list(accumulate((bucket.numel_unpadded for bucket in buffer.buckets), initial=0))
        moved = [start - bucket.offset for start, bucket in zip(starts, buffer.buckets, strict=False)]
        buffer.param_index_map = {
            parameter: (start + moved[bucket], end + moved[bucket], bucket)
            for parameter, (start, end, bucket) in buffer.param_index_map.items()
        }
    try:
        yield
    finally:
        for buffer, place in zip(buffers, places, strict=True):
            buffer.param_index_map = place


def _fill_moments(optimizer: MegatronOptimizer) -> None:
    """Adam makes its moments in the first step; megatron-core's state wants them there."""
    adam = optimizer.optimizer
    for parameter in (parameter for group in adam.param_groups for parameter in group["params"]):
        for name in ("exp_avg", "exp_avg_sq"):
            adam.state[parameter].setdefault(name, torch.zeros_like(parameter))
