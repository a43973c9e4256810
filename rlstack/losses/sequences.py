"""Sums over the sequences of a packed micro-batch. Letters as in data.records."""

from __future__ import annotations

import torch
from torch import Tensor

from rlstack.losses.types import LossInputs, Ratio


def masked(values: Tensor, loss_mask: Tensor) -> Tensor:
    """`values` [T] with exact zeros where `loss_mask` [T] is False, in the value and in the gradient."""
    return torch.where(loss_mask, values, torch.zeros_like(values))


def sum_by_sequence(values: Tensor, sequence_starts: Tensor) -> Tensor:
    """Sums of `values` [T] between the offsets `sequence_starts` [S + 1] int64, as [S]."""
    lengths = sequence_starts.diff()
    sequences = torch.arange(len(lengths), device=values.device)
    # output_size spares the GPU a synchronisation: the last offset is T.
    owners = sequences.repeat_interleave(lengths, output_size=len(values))
    return values.new_zeros(len(lengths)).index_add(0, owners, values)


def mean(values: Tensor) -> Ratio:
    """The mean of `values` [N]."""
    values = values.detach()
    return Ratio(values.sum(), values.new_full((), values.numel()))


def entropy_mean(inputs: LossInputs) -> Ratio:
    """The policy's mean entropy at the positions whose label was sampled, in nats."""
    return Ratio(masked(inputs.entropy, inputs.loss_mask).detach().sum(), inputs.loss_mask.sum())
