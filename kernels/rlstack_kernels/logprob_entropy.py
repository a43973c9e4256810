"""Logprob of the label and entropy of the softmax of logits that exist already.

Letters: T tokens, V vocabulary size with padding, TP ranks of the group.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from rlstack_kernels import torch_blocks
from rlstack_kernels.blockwise import slices
from rlstack_kernels.options import (
    Entropy,
    Implementation,
    as_inv_temp,
    blocks_of,
    check_choice,
    check_labels,
    columns_without_padding,
    refuse_entropy_gradient,
)
from rlstack_kernels.reference import reference
from rlstack_kernels.statistics import LogprobEntropy, Softmax, coefficients, merge, new_statistics, wide

# torch needs a copy of a block in fp32; Triton reads the logits as they are, all at once.
BLOCK_ELEMENTS = 2**18


def logprob_entropy(
    logits: Tensor,
    labels: Tensor,
    *,
    inv_temp: float | Tensor = 1.0,
    vocab_start: int = 0,
    vocab_valid: int | None = None,
    group: dist.ProcessGroup | None = None,
    ignore_index: int = -100,
    entropy: Entropy = "grad",
    overwrite_logits: bool = False,
    implementation: Implementation = "auto",
) -> LogprobEntropy:
    """The labels' logprobs and the entropies under softmax(logits * inv_temp), [T] fp32 each.

    logits: [T, V / TP] of any float dtype, the last dimension contiguous; -inf takes a column out.
    overwrite_logits: the backward pass writes the gradient into the logits' own memory, and nothing of the
    size of the logits is ever allocated; nothing else may need their values then.
    The other arguments, and the errors, are those of `linear_logprob_entropy`.
    """
    check_choice("entropy", entropy, Entropy)
    check_choice("implementation", implementation, Implementation)
    if implementation == "liger":
        raise ValueError(
            "implementation is 'liger', which starts from hidden states; choose another for logits"
        )
    width = logits.size(1)
    check_labels(
        labels,
        num_tokens=logits.size(0),
        ignore_index=ignore_index,
        columns=range(vocab_start, vocab_start + width),
        vocab_valid=vocab_valid,
        group=group,
    )
    call = _Call(
        blocks=blocks_of(implementation, logits.device),
        vocab_start=vocab_start,
        num_valid=columns_without_padding(width, vocab_start, vocab_valid),
        group=group,
        ignore_index=ignore_index,
        entropy=entropy,
        overwrite=overwrite_logits,
    )
    scale = as_inv_temp(inv_temp, labels, wide(logits.dtype))
    if implementation == "reference":
        outputs = _refer(logits, labels, scale, call)
    else:
        outputs = _LogprobEntropy.apply(logits, labels, scale, call)
    logprobs, entropies = (output.to(wide(logits.dtype)) for output in outputs)
    return LogprobEntropy(logprobs, None if entropy == "none" else entropies)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Call:
    """The arguments of one call that are no tensors to differentiate."""

    blocks: ModuleType
    vocab_start: int
    num_valid: int  # columns that are no padding
    group: dist.ProcessGroup | None
    ignore_index: int
    entropy: Entropy
    overwrite: bool

    def grid(self, num_tokens: int) -> Iterator[tuple[slice, slice]]:
        """Rows and columns of the blocks, without padded columns: one for Triton, small ones for torch."""
        step = max(BLOCK_ELEMENTS // max(self.num_valid, 1), 1)
        if self.num_valid > 0:
            for rows in slices(num_tokens, step if self.blocks is torch_blocks else max(num_tokens, 1)):
                yield rows, slice(0, self.num_valid)


class _LogprobEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, labels: Tensor, inv_temp: Tensor | None, call: _Call
    ) -> tuple[Tensor, Tensor | None]:
        """Keep the logits, which are the caller's, and the four statistics of each token."""
        ctx.set_materialize_grads(False)
        statistics = new_statistics(logits.size(0), logits)
        for rows, columns in call.grid(logits.size(0)):
            call.blocks.fold(
                logits[rows, columns],
                labels[rows],
                None if inv_temp is None else inv_temp[rows],
                statistics[:, rows],
                first_column=call.vocab_start + columns.start,
                saved=None,
                overwrite=False,
            )
        softmax = merge(statistics, call.group)
        ctx.call = call
        ctx.save_for_backward(logits, labels, inv_temp, *softmax)
        return softmax.outputs(labels == call.ignore_index)

    @staticmethod
    def backward(ctx: Any, *arrived: Tensor | None) -> tuple[Tensor | None, ...]:
        """The gradient of the logits, in their own memory if the caller has said so."""
        call: _Call = ctx.call
        refuse_entropy_gradient(call.entropy, arrived[1])
        logits, labels, inv_temp, *softmax = ctx.saved_tensors
        slopes = coefficients(Softmax(*softmax), arrived, inv_temp, labels == call.ignore_index)
        gradient = logits.detach() if call.overwrite else torch.empty_like(logits)
        for rows, columns in call.grid(logits.size(0)):
            call.blocks.logits_gradient(
                logits[rows, columns],
                labels[rows],
                None if inv_temp is None else inv_temp[rows],
                slopes[:, rows],
                gradient[rows, columns],
                first_column=call.vocab_start + columns.start,
                overwrite=False,
            )
        gradient[:, call.num_valid :] = 0.0
        if call.overwrite:
            # A second backward pass must find that the logits are gone; Triton's writes do not tell it.
            torch.autograd.graph.increment_version(logits)
        return gradient, None, None, None


def _refer(logits: Tensor, labels: Tensor, inv_temp: Tensor | None, call: _Call) -> tuple[Tensor, Tensor]:
    logprobs, entropies = reference(
        logits[:, : call.num_valid],
        labels,
        inv_temp,
        vocab_start=call.vocab_start,
        group=call.group,
        ignore_index=call.ignore_index,
    )
    if entropies.requires_grad:
        entropies.register_hook(lambda gradient: refuse_entropy_gradient(call.entropy, gradient))
    return logprobs, entropies
