"""The head's operations on CUDA tensors of an 8B model that hold nothing, in the dtype that is named.

python head_job.py DTYPE: torch checks shapes, dtypes and devices of each operation, and computes nothing.
Prints the dtypes of the gradients.
"""

from __future__ import annotations

import sys

import torch
from rlstack_kernels import torch_blocks
from rlstack_kernels.blockwise import Head, Saved, add_gradients, fold_all
from rlstack_kernels.statistics import coefficients, merge, new_statistics
from torch._subclasses.fake_tensor import FakeTensorMode

TOKENS, HIDDEN, VOCAB, PADDING = 8192, 4096, 128256, 56


def gradients(dtype: torch.dtype, *, save: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Of hidden states and weight, accumulated in fp32 as megatron-core's main_grad."""

    def empty(*shape: int, dtype: torch.dtype) -> torch.Tensor:
        return torch.empty(*shape, device="cuda", dtype=dtype)

    labels = torch.zeros(TOKENS, device="cuda", dtype=torch.int64)
    hidden, weight = empty(TOKENS, HIDDEN, dtype=dtype), empty(VOCAB, HIDDEN, dtype=dtype)
    of_hidden, of_weight = (empty(*each.shape, dtype=torch.float32) for each in (hidden, weight))
    head = Head(hidden, weight[:-PADDING], labels, None, 0, torch_blocks)
    saved = Saved(head) if save else None
    statistics = new_statistics(TOKENS, hidden)
    fold_all(head, statistics, saved)
    slopes = coefficients(
        merge(statistics, None), (torch.ones(TOKENS, device="cuda"), None), None, labels == -100
    )
    add_gradients(
        head,
        slopes,
        saved,
        grad_hidden=of_hidden,
        grad_weight=of_weight[:-PADDING],
        hidden_done=lambda: None,
    )
    return of_hidden, of_weight


if __name__ == "__main__":
    for save in (True, False):
        with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
            found = gradients(getattr(torch, sys.argv[1]), save=save)
        print(*(f"{each.device.type} {each.dtype}" for each in found), sep=", ")
