"""Sums over the sequences of a packed micro-batch. Letters as in data.records."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlstack.losses.types import LossInputs, Ratio

if TYPE_CHECKING:
    from torch import Tensor


def masked(values: Tensor, loss_mask: Tensor) -> Tensor:
    """`values` [T] with exact zeros where `loss_mask` [T] is False, in the value and in the gradient."""
    return values.where(loss_mask, values.new_zeros(values.shape))


def sum_by_sequence(values: Tensor, sequence_starts: Tensor) -> Tensor:
    """Sums of `values` [T] between the offsets `sequence_starts` [S + 1] int64, as [S]."""
    owners = _owners(sequence_starts, len(values))
    return values.new_zeros(len(sequence_starts) - 1).index_add(0, owners, values)


def by_token(values: Tensor, inputs: LossInputs) -> Tensor:
    """`values` [S] at every token of their sequences, [T]."""
    return values[_owners(inputs.sequence_starts, len(inputs.loss_mask))]


def rollout_sums(values: Tensor, inputs: LossInputs, *, per_token: bool = False) -> Tensor:
    """Sums of `values` [T] over each sequence's sampled tokens, the end token included, or means: [S]."""
    sums = sum_by_sequence(masked(values, inputs.loss_mask), inputs.sequence_starts)
    if not per_token:
        return sums
    # A filler has no sampled token.
    return sums / sum_by_sequence(inputs.loss_mask.to(values.dtype), inputs.sequence_starts).clamp(min=1)


def mean(values: Tensor, weights: Tensor) -> Ratio:
    """The mean of `values` under `weights`, of any one shape."""
    return Ratio((values.detach() * weights).sum(), weights.sum())


def rollout_mean(values: Tensor, inputs: LossInputs) -> Ratio:
    """The mean of `values` [S], which are 0 for rollouts without a loss, over all rollouts."""
    total, count = mean(values, inputs.rollout_weights)
    return Ratio(total, count + inputs.num_zero_rollouts)


def entropy_mean(inputs: LossInputs) -> Ratio:
    """The policy's mean entropy at the positions whose label was sampled, in nats."""
    return Ratio(masked(inputs.entropy, inputs.loss_mask).detach().sum(), inputs.loss_mask.sum())


def _owners(sequence_starts: Tensor, num_tokens: int) -> Tensor:
    """The sequence of each token, [T] int64."""
    import torch

    lengths = sequence_starts.diff()
    sequences = torch.arange(len(lengths), device=lengths.device)
    # output_size spares the GPU a synchronisation: the last offset is T.
    return sequences.repeat_interleave(lengths, output_size=num_tokens)
