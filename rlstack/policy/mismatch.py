"""How far the generator's logprobs of the sampled tokens are from the trainer's."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

import torch
from torch import Tensor

from rlstack.losses.types import Ratio


class Author(Enum):
    """Whose logprobs are of the version that wrote the rollouts."""

    policy = "policy"
    reference = "reference"


class Difference(NamedTuple):
    """Absolute differences over the sampled tokens."""

    mean: Ratio
    maximum: Tensor  # scalar; -inf without a sampled token


def author_of(*, rollout_version: int, policy_version: int, reference_version: int | None) -> Author | None:
    """Which of the trainer's logprobs to hold against the generator's; None if it has none of that version.

    reference_version: of a reference whose logprobs were computed in this step, otherwise None.
    """
    if rollout_version == policy_version:
        return Author.policy
    if rollout_version == reference_version:
        return Author.reference
    return None


def difference(logprobs: Tensor, generator_logprobs: Tensor, loss_mask: Tensor) -> Difference:
    """|logprobs - generator_logprobs| where `loss_mask`; all [T], on natural logarithms."""
    distances = (logprobs.detach() - generator_logprobs).abs()[loss_mask]
    maximum = distances.max() if len(distances) else distances.new_full((), -torch.inf)
    return Difference(Ratio(distances.sum(), loss_mask.sum()), maximum)
