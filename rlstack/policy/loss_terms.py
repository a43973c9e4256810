"""The loss of one micro-batch on the last stage, and what is reported of it."""

from __future__ import annotations

import torch
from rlstack_kernels import LogprobEntropy
from torch import Tensor

from rlstack.data.records import MicroBatch
from rlstack.losses.build import Loss
from rlstack.losses.types import LossInputs
from rlstack.policy.backend import device
from rlstack.policy.mismatch import Author, author_of, difference
from rlstack.policy.packed import PackedBatch
from rlstack.policy.parallel import context_rank
from rlstack.policy.step_metrics import MicroBatchMetrics

# What a schedule takes from the loss function: loss, its part of the divisor, the metrics.
LossTerms = tuple[Tensor, Tensor, MicroBatchMetrics]


def loss_terms(
    loss: Loss,
    batch: PackedBatch,
    output: LogprobEntropy,
    reference_logprobs: Tensor | None,
    *,
    policy_version: int,
    reference_version: int | None,
) -> LossTerms:
    """From the model's `output` on this rank; collective over the context-parallel ranks.

    All of these compute the same loss of the whole micro-batch, and its gradient by their own tokens; the
    examples count on the first of them.

    reference_logprobs: [T], of the reference at `reference_version`; None: its version is the policy's, or
    the loss needs none.
    """
    whole = batch.whole(output)
    if reference_logprobs is None:
        reference_version = None
        if loss.needs_reference:
            reference_logprobs = whole.logprobs.detach()
    inputs = batch.loss_inputs(whole, reference_logprobs)
    result = loss(inputs)
    metrics = MicroBatchMetrics(loss=result.loss.detach(), ratios=dict(result.metrics))
    author = author_of(
        rollout_version=batch.source.version,
        policy_version=policy_version,
        reference_version=reference_version,
    )
    _compare(metrics, inputs, author)
    _count(metrics, batch.source, num_padded=batch.num_tokens)
    num_examples = batch.source.num_examples + batch.source.num_zero_examples
    divisor = num_examples if context_rank() == 0 else 0
    return result.loss, torch.tensor(divisor, dtype=torch.int, device=device()), metrics


def _compare(metrics: MicroBatchMetrics, inputs: LossInputs, author: Author | None) -> None:
    """Hold the generator's logprobs against the trainer's of the same version, and of the current one."""
    mask, generator = inputs.loss_mask, inputs.generator_logprobs
    drift = difference(inputs.policy_logprobs, generator, mask)
    metrics.add_difference("drift/logprob_abs", drift)
    if author is Author.policy:
        metrics.add_difference("mismatch/logprob_abs", drift)
    elif author is Author.reference:
        assert inputs.reference_logprobs is not None
        mismatch = difference(inputs.reference_logprobs, generator, mask)
        metrics.add_difference("mismatch/logprob_abs", mismatch)


def _count(metrics: MicroBatchMetrics, batch: MicroBatch, *, num_padded: int) -> None:
    num_trained = len(batch.token_ids) if batch.num_examples else 0
    metrics.sums["tokens/trained"] = num_trained
    metrics.sums["tokens/padding"] = num_padded - num_trained
