"""What context-parallel ranks, which share the tokens of each sequence, tell each other beside attention."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from rlstack.policy.backend import parallel_state


def gather_over_context(local: Tensor) -> Tensor:
    """[..., t] on each of R ranks -> [..., R * t] on all of them, rank by rank; a collective of them.

    The gradient is meant for what every rank computes alike from the result: each keeps that of its own part.
    """
    group = parallel_state.get_context_parallel_group()
    if group.size() == 1:
        return local
    whole: Tensor = _Gather.apply(local, group)
    return whole


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, local: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        parts = [torch.empty_like(local) for _ in range(group.size())]
        dist.all_gather(parts, local.contiguous(), group=group)
        return torch.cat(parts, dim=-1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient.chunk(ctx.group.size(), dim=-1)[ctx.group.rank()], None
