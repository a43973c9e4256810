"""GRPO (arXiv 2506.21495, Eq. 1), by itself and as a term of other objectives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlstack.losses.sequences import by_token, entropy_mean, masked, mean, rollout_mean, rollout_sums
from rlstack.losses.terms import clipped_surrogate, k3_kl, truncated_ratios, unit_ratios
from rlstack.losses.types import LossInputs, LossOutput, Ratio

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class GrpoTerm:
    """The sum over a rollout's sampled tokens of -r * A + kl_scale * k3.

    r is the policy's ratio to itself: the rollouts' own policy is taken to be the one that trains, as in the
    paper. Where a bound is set, the clipped ratio to the generator takes its place; where a cap is set, the
    truncated one weighs it. length_normalised: the mean over the tokens instead of the sum.
    """

    kl_scale: float = 0.0
    length_normalised: bool = False
    clip_ratio_low: float | None = None
    clip_ratio_high: float | None = None
    tis_cap: float | None = None

    def losses(self, inputs: LossInputs) -> tuple[Tensor, dict[str, Ratio]]:
        """The loss of each rollout, [S], and the metrics."""
        mask = inputs.loss_mask
        policy = masked(inputs.policy_logprobs, mask)
        losses = -self._surrogate(policy, masked(inputs.generator_logprobs, mask), inputs)
        metrics = {}
        if self.kl_scale > 0:
            assert inputs.reference_logprobs is not None, "the KL compares with the reference"
            kl = k3_kl(policy, masked(inputs.reference_logprobs.detach(), mask))
            losses = losses + self.kl_scale * kl
            metrics["grpo/kl"] = mean(kl, mask)
        by_rollout = rollout_sums(losses, inputs, per_token=self.length_normalised)
        metrics["loss/grpo"] = rollout_mean(by_rollout, inputs)
        return by_rollout, metrics

    def _surrogate(self, policy: Tensor, generator: Tensor, inputs: LossInputs) -> Tensor:
        """What GRPO maximises, [T]."""
        advantages = by_token(inputs.advantages, inputs)
        low, high = self.clip_ratio_low, self.clip_ratio_high
        if low is not None or high is not None:
            return clipped_surrogate(policy, generator, advantages, low=low, high=high)
        if self.tis_cap is not None:
            advantages = advantages * truncated_ratios(policy, generator, cap=self.tis_cap)
        return unit_ratios(policy) * advantages


@dataclass(frozen=True, slots=True, kw_only=True)
class GrpoLoss:
    """The sum over rollouts of `term` - entropy_scale * (sum of the entropies at sampled tokens).

    The divisor of the step is its number of rollouts.
    """

    term: GrpoTerm
    entropy_scale: float = 0.0

    @property
    def needs_reference(self) -> bool:
        return self.term.kl_scale > 0

    @property
    def needs_entropy_gradient(self) -> bool:
        return self.entropy_scale > 0

    def __call__(self, inputs: LossInputs) -> LossOutput:
        weights = inputs.rollout_weights
        losses, metrics = self.term.losses(inputs)
        metrics["policy/entropy"] = entropy_mean(inputs)
        if self.entropy_scale > 0:
            entropy = rollout_sums(inputs.entropy, inputs, per_token=self.term.length_normalised)
            losses = losses - self.entropy_scale * entropy
            metrics["loss/entropy"] = rollout_mean(-entropy, inputs)
        metrics["loss/total"] = rollout_mean(losses, inputs)
        return LossOutput(loss=(weights * losses).sum(), metrics=metrics)
