"""Parameters of megatron-core put together from slices of Hugging Face's tensors, and cut into them again.

`rlstack.model.weight_names` says which slices make a parameter.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rlstack.model.architecture import Architecture
from rlstack.model.weight_names import Fusion, Rule, padded_vocab_size


def fuse(rule: Rule, slices: Sequence[Tensor], architecture: Architecture, *, tp_size: int) -> Tensor:
    """One rank's parameter from its slices of the rule's parts."""
    if rule.fusion is Fusion.gate_up:
        return torch.cat(list(slices))
    if rule.fusion is Fusion.qkv:
        num_groups = architecture.num_kv_heads // tp_size
        grouped = [part.reshape(num_groups, -1, *part.shape[1:]) for part in slices]
        return torch.cat(grouped, dim=1).flatten(0, 1)
    (tensor,) = slices
    if rule.padded:
        num_missing = padded_vocab_size(architecture, tp_size) // tp_size - tensor.size(0)
        return torch.cat([tensor, tensor.new_zeros(num_missing, *tensor.shape[1:])])
    return tensor


def split(rule: Rule, parameter: Tensor, architecture: Architecture) -> list[Tensor]:
    """The inverse of `fuse`, padding kept: this rank's slices of the rule's parts."""
    if rule.fusion is Fusion.gate_up:
        return list(parameter.chunk(2))
    if rule.fusion is Fusion.qkv:
        head_dim = architecture.head_dim
        num_queries = architecture.num_heads // architecture.num_kv_heads
        grouped = parameter.reshape(-1, (num_queries + 2) * head_dim, *parameter.shape[1:])
        return [
            part.flatten(0, 1) for part in grouped.split([num_queries * head_dim, head_dim, head_dim], dim=1)
        ]
    return [parameter]


def join(rule: Rule, shards: Sequence[Tensor], architecture: Architecture) -> list[tuple[str, Tensor]]:
    """The rule's Hugging Face tensors, by name, from the parameters of all tensor-parallel ranks in order."""
    slices = zip(*(split(rule, shard, architecture) for shard in shards), strict=True)
    tensors = []
    for part, pieces in zip(rule.parts, slices, strict=True):
        tensor = pieces[0] if part.cut is None else torch.cat(pieces, dim=part.cut)
        tensors.append((part.name, (tensor[: part.shape[0]] if rule.padded else tensor).contiguous()))
    return tensors
