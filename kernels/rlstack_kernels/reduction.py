"""The hidden states over the ranks of a group: gathered forward, their gradient reduced backward."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from rlstack_kernels.options import HiddenGrad


@dataclass(frozen=True, slots=True)
class Reduction:
    """`kind` says what becomes of the gradient; with reduce_scatter the hidden states are cut along T."""

    kind: HiddenGrad
    group: dist.ProcessGroup | None

    def num_tokens(self, hidden: Tensor) -> int:
        """T, given this rank's hidden states."""
        return hidden.size(0) * (self._size if self.kind == "reduce_scatter" else 1)

    def gather(self, hidden: Tensor) -> Tensor:
        """[T, H] from this rank's hidden states."""
        if self.kind != "reduce_scatter" or self._size == 1:
            return hidden
        whole = hidden.new_empty(hidden.size(0) * self._size, hidden.size(1))
        dist.all_gather_into_tensor(whole, hidden.contiguous(), group=self.group)
        return whole

    def start(self, grad_hidden: Tensor) -> PendingGradient:
        """Begin to reduce this rank's part [T, H], whose memory must stay as it is until `wait`."""
        if self.kind == "partial" or self._size == 1:
            return PendingGradient(grad_hidden, None)
        if self.kind == "all_reduce":
            return PendingGradient(grad_hidden, dist.all_reduce(grad_hidden, group=self.group, async_op=True))
        own = grad_hidden.new_empty(grad_hidden.size(0) // self._size, grad_hidden.size(1))
        work = dist.reduce_scatter_tensor(own, grad_hidden, group=self.group, async_op=True)
        return PendingGradient(own, work)

    def share(self, whole: Tensor) -> Tensor:
        """The part of a reduced hidden states' gradient [T, H] that this rank has to return."""
        if self._size == 1 or self.kind == "all_reduce":
            return whole
        rank = dist.get_rank(self.group)
        if self.kind == "reduce_scatter":
            return whole.chunk(self._size)[rank]
        return whole if rank == 0 else torch.zeros_like(whole)  # parts of a sum

    @property
    def _size(self) -> int:
        return 1 if self.group is None else dist.get_world_size(self.group)


@dataclass(frozen=True, slots=True)
class PendingGradient:
    _gradient: Tensor
    _work: Any

    def wait(self) -> Tensor:
        if self._work is not None:
            self._work.wait()
        return self._gradient
