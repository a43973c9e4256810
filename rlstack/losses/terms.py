"""The formulas that objectives are made of, on tensors alone."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def dpo_margins(policy_logprobs: Tensor, reference_logprobs: Tensor, pairs: Tensor, *, beta: float) -> Tensor:
    """beta * ((lp_c - ref_c) - (lp_r - ref_r)) of each pair, [N]; arXiv 2305.18290, Eq. 7.

    Args:
        policy_logprobs, reference_logprobs: [S], of whole rollouts.
        pairs: [N, 2] int64, (chosen c, rejected r) as indices of sequences.
    """
    log_ratios = policy_logprobs - reference_logprobs
    return beta * (log_ratios[pairs[:, 0]] - log_ratios[pairs[:, 1]])


def unit_ratios(policy_logprobs: Tensor) -> Tensor:
    """The ratio of the policy to itself, [T]: 1 in value, with the gradient of the logprob.

    Preferred to the logprob itself because the loss then has the value of the paper's objective on-policy.
    """
    return (policy_logprobs - policy_logprobs.detach()).exp()


def truncated_ratios(policy_logprobs: Tensor, generator_logprobs: Tensor, *, cap: float) -> Tensor:
    """min(exp(lp - gen), cap) per token, [T], without gradient: weights that undo the generator's mismatch.

    Truncated importance sampling as in https://fengyao.notion.site/off-policy-rl.
    """
    return (policy_logprobs.detach() - generator_logprobs).exp().clamp(max=cap)


def clipped_surrogate(
    policy_logprobs: Tensor,
    generator_logprobs: Tensor,
    advantages: Tensor,
    *,
    low: float | None,
    high: float | None,
) -> Tensor:
    """min(r * A, clip(r, 1 - low, 1 + high) * A) per token, [T], with r = exp(lp - gen).

    arXiv 1707.06347, Eq. 7, with a bound for each side (arXiv 2503.14476, Eq. 10); None: no bound.
    """
    ratios = (policy_logprobs - generator_logprobs).exp()
    lowest, highest = 0.0 if low is None else 1 - low, math.inf if high is None else 1 + high
    return (ratios * advantages).minimum(ratios.clamp(lowest, highest) * advantages)


def k3_kl(policy_logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """exp(ref - lp) - (ref - lp) - 1 per token, [T]: an estimate of KL(policy || reference) that is >= 0.

    The k3 estimator of http://joschu.net/blog/kl-approx.html, as in arXiv 2402.03300, Eq. 4.
    """
    log_ratios = reference_logprobs - policy_logprobs
    return log_ratios.expm1() - log_ratios
