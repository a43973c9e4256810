"""What a loss takes and gives."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor


class Ratio(NamedTuple):
    """A metric as total / count; both are summed over micro-batches and data-parallel ranks first."""

    total: Tensor  # scalar, detached
    count: Tensor  # type: ignore[assignment]  # scalar, detached; hides tuple.count


@dataclass(frozen=True, slots=True, kw_only=True)
class LossInputs:
    """One micro-batch as tensors on the device of the last pipeline stage. Letters as in data.records."""

    policy_logprobs: Tensor  # [T] fp32, with gradient
    entropy: Tensor  # [T] fp32, of the policy's distribution; with gradient if the loss needs it
    reference_logprobs: Tensor | None  # [T] fp32; None: the objective needs none
    generator_logprobs: Tensor  # [T] fp32
    loss_mask: Tensor  # [T] bool
    sequence_starts: Tensor  # [S + 1] int64
    pairs: Tensor  # [N, 2] int64
    pair_weights: Tensor  # [N] fp32
    advantages: Tensor  # [S] fp32
    rollout_weights: Tensor  # [S] fp32
    num_zero_rollouts: int = 0  # further ones, whose loss is 0: means over rollouts count them


@dataclass(frozen=True, slots=True, kw_only=True)
class LossOutput:
    loss: Tensor  # scalar: a sum over examples, which the caller divides by the step's number of examples
    metrics: dict[str, Ratio] = field(default_factory=dict)
