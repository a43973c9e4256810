"""Logprob of the label and entropy of the softmax of a linear layer, without keeping its logits.

For logits l = hidden @ weight.T, shifted by their maximum m, with Z = sum exp(l - m) and E = mean of (l - m)
under the softmax p:

    logprob = l[label] - m - log Z                d logprob / d l_i = [i = label] - p_i
    entropy = log Z - E                           d entropy / d l_i = -p_i (l_i - m - E)

Logits exist for `chunk_tokens` tokens at a time; the backward pass computes them again from (m, log Z, E),
which are saved per token. The vocabulary is split over the ranks of a group: the ranks exchange four numbers
per token in the forward pass and none in the backward pass. The shift keeps the entropy exact where the
logits are large.

Letters: T tokens, H hidden size, V vocabulary size with padding, TP ranks of the group.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

# Finite, because -inf - -inf is nan where all rows of a rank are padding.
_MASKED = -1e30


def linear_logprob_entropy(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    *,
    vocab_start: int,
    vocab_valid: int,
    group: dist.ProcessGroup | None,
    chunk_tokens: int,
) -> tuple[Tensor, Tensor]:
    """The labels' logprobs and the entropies, [T] fp32 each, the same on all ranks of `group`.

    hidden: [T, H], equal on all ranks. weight: [V / TP, H], this rank's rows. labels: [T] int64 in the whole
    vocabulary. vocab_start: the whole vocabulary's number of this rank's first row. vocab_valid: how many
    rows, from this rank's first one on, are no padding; <= 0 where all are, and beyond V / TP where none is.
    group: None for a vocabulary in one piece.

    The gradient of `hidden` is this rank's part of a sum over the group. The caller reduces it, since under
    sequence parallelism that is a reduce-scatter.
    """
    num_valid = min(max(vocab_valid, 0), weight.size(0))
    return _LinearLogprobEntropy.apply(hidden, weight, labels, vocab_start, num_valid, group, chunk_tokens)


class _LinearLogprobEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        labels: Tensor,
        vocab_start: int,
        vocab_valid: int,
        group: dist.ProcessGroup | None,
        chunk_tokens: int,
    ) -> tuple[Tensor, Tensor]:
        """Statistics of this rank's rows chunk by chunk, then one exchange for all tokens."""
        local = hidden.new_empty(4, hidden.size(0), dtype=torch.float32)
        for start in range(0, hidden.size(0), chunk_tokens):
            rows = slice(start, start + chunk_tokens)
            logits = _logits(hidden[rows], weight, vocab_valid)
            owned, index = _owned(labels[rows], vocab_start, vocab_valid)
            maximum = logits.amax(-1)
            label_logit = logits.gather(1, index[:, None])[:, 0] * owned
            shifted = logits.sub_(maximum[:, None])
            exponential = shifted.exp()
            partition, moment = exponential.sum(-1), exponential.mul_(shifted).sum(-1)
            local[:, rows] = torch.stack([maximum, partition, moment, label_logit])
        maximum, log_partition, mean, label_logit = _combine(local, group)
        ctx.save_for_backward(hidden, weight, labels, maximum + log_partition, maximum + mean)
        ctx.vocab_start, ctx.vocab_valid, ctx.chunk_tokens = vocab_start, vocab_valid, chunk_tokens
        return label_logit - maximum - log_partition, log_partition - mean

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """The logits again, chunk by chunk; no exchange."""
        hidden, weight, labels, log_normaliser, mean_logit = ctx.saved_tensors
        grad_logprob, grad_entropy = gradients
        grad_hidden = torch.empty_like(hidden)
        grad_weight = torch.zeros_like(weight, dtype=torch.float32)
        for start in range(0, hidden.size(0), ctx.chunk_tokens):
            rows = slice(start, start + ctx.chunk_tokens)
            logits = _logits(hidden[rows], weight, ctx.vocab_valid)
            owned, index = _owned(labels[rows], ctx.vocab_start, ctx.vocab_valid)
            probability = (logits - log_normaliser[rows, None]).exp_()
            slope = (
                logits.sub_(mean_logit[rows, None])
                .mul_(grad_entropy[rows, None])
                .add_(grad_logprob[rows, None])
            )
            grad_logits = probability.mul_(slope).neg_()
            grad_logits.scatter_add_(1, index[:, None], (grad_logprob[rows] * owned)[:, None])
            grad_logits = grad_logits.to(hidden.dtype)
            grad_hidden[rows] = grad_logits @ weight
            grad_weight += grad_logits.t() @ hidden[rows]
        return grad_hidden, grad_weight.to(weight.dtype), None, None, None, None, None


def _logits(hidden: Tensor, weight: Tensor, vocab_valid: int) -> Tensor:
    """[chunk, V / TP] fp32, padding masked."""
    logits = (hidden @ weight.t()).float()
    if vocab_valid < weight.size(0):
        logits[:, vocab_valid:] = _MASKED
    return logits


def _owned(labels: Tensor, vocab_start: int, vocab_valid: int) -> tuple[Tensor, Tensor]:
    """[chunk] bool: the label is one of this rank's rows; [chunk] int64: which one, or any."""
    index = labels - vocab_start
    owned = (index >= 0) & (index < vocab_valid)
    return owned, index * owned


def _combine(local: Tensor, group: dist.ProcessGroup | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Maximum, log Z, E and the label's logit, [T] each, of the whole vocabulary from every rank's part.

    local: [4, T] = maximum, sum exp(l - maximum), sum of exp(l - maximum) (l - maximum), label's logit or 0.
    """
    parts = [local]
    if group is not None and dist.get_world_size(group) > 1:
        parts = [torch.empty_like(local) for _ in range(dist.get_world_size(group))]
        dist.all_gather(parts, local, group=group)
    maxima, partitions, moments, label_logits = torch.stack(parts, dim=1)  # [TP, T] each
    maximum = maxima.amax(0)
    scales = (maxima - maximum).exp()
    partition = (partitions * scales).sum(0)
    moment = ((moments + partitions * (maxima - maximum)) * scales).sum(0)
    return maximum, partition.log(), moment / partition, label_logits.sum(0)
