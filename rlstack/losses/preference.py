"""DPO, GroupDPO, and GroupDPO with GRPO (arXiv 2506.21495, Eq. 3, Eq. 4 and their sum)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlstack.losses.grpo import GrpoTerm
from rlstack.losses.sequences import entropy_mean, mean, rollout_sums
from rlstack.losses.terms import dpo_margins
from rlstack.losses.types import LossInputs, LossOutput, Ratio

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferenceLoss:
    """The sum over examples of the mean over an example's pairs (chosen c, rejected r) of

        -log sigmoid(margin) + nll_scale * NLL(c) - entropy_scale * H(c)

    and, with `grpo`, + alpha * the mean of GRPO's loss over the example's rollouts, token by token.

    An example is one pair (DPO) or all pairs of a group (GroupDPO); the divisor of the step is its number of
    examples. Logprobs in the margin, NLL and entropies H are sums over a rollout's sampled tokens, the end
    token included, or means where they are length-normalised. A rollout's logprobs are computed once,
    however many pairs it is in.
    """

    beta: float
    length_normalised: bool = False
    nll_scale: float = 0.0
    nll_length_normalised: bool = True
    entropy_scale: float = 0.0
    grpo: GrpoTerm | None = None
    alpha: float = 0.0
    needs_reference: bool = True

    @property
    def needs_entropy_gradient(self) -> bool:
        return self.entropy_scale > 0

    def __call__(self, inputs: LossInputs) -> LossOutput:
        losses, metrics = self._pair_losses(inputs)
        weights = inputs.pair_weights
        loss = (weights * losses).sum()
        if self.grpo is not None:
            rollout_losses, of_grpo = self.grpo.losses(inputs)
            loss = loss + self.alpha * (inputs.rollout_weights * rollout_losses).sum()
            metrics |= of_grpo
        metrics["loss/total"] = Ratio(loss.detach(), weights.sum())
        metrics["policy/entropy"] = entropy_mean(inputs)
        return LossOutput(loss=loss, metrics=metrics)

    def _pair_losses(self, inputs: LossInputs) -> tuple[Tensor, dict[str, Ratio]]:
        """The loss of each pair, [N], without GRPO's part."""
        from torch.nn import functional

        assert inputs.reference_logprobs is not None, "DPO compares with the reference"
        weights, (chosen, rejected) = inputs.pair_weights, inputs.pairs.unbind(1)
        policy, reference = inputs.policy_logprobs, inputs.reference_logprobs.detach()
        margins = dpo_margins(
            rollout_sums(policy, inputs, per_token=self.length_normalised),
            rollout_sums(reference, inputs, per_token=self.length_normalised),
            inputs.pairs,
            beta=self.beta,
        )
        losses = -functional.logsigmoid(margins)
        logprobs = rollout_sums(policy.detach(), inputs)
        metrics = {
            "loss/dpo": mean(losses, weights),
            "dpo/margin": mean(margins, weights),
            "dpo/accuracy": mean((margins > 0).float(), weights),
            "policy/chosen_logprob": mean(logprobs[chosen], weights),
            "policy/rejected_logprob": mean(logprobs[rejected], weights),
        }
        for name, scale, of_rollouts in self._chosen_terms(inputs):
            of_pairs = of_rollouts[chosen]
            losses = losses + scale * of_pairs
            metrics[name] = mean(of_pairs, weights)
        return losses, metrics

    def _chosen_terms(self, inputs: LossInputs) -> Iterator[tuple[str, float, Tensor]]:
        """What a rollout adds to the loss where it is the chosen one: metric, scale, [S]."""
        if self.nll_scale > 0:
            logprobs = rollout_sums(inputs.policy_logprobs, inputs, per_token=self.nll_length_normalised)
            yield "loss/nll", self.nll_scale, -logprobs
        if self.entropy_scale > 0:
            entropy = rollout_sums(inputs.entropy, inputs, per_token=self.length_normalised)
            yield "loss/entropy", self.entropy_scale, -entropy
