"""The code that can compute the policy's logprobs in its layout. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from rlstack.config.schema import LogprobKernel, LogprobMode, Policy
from rlstack.model.weight_names import VOCAB_MULTIPLE


class HeadShape(Protocol):
    """Of the output layer."""

    @property
    def vocab_size(self) -> int: ...


def logprob_problems(policy: Policy, shape: HeadShape) -> Iterator[str]:
    """The limits of Liger's kernels on any machine, one line each."""
    if policy.logprob_kernel is not LogprobKernel.liger:
        return
    if policy.logprob_mode is LogprobMode.save:
        yield (
            "policy.logprob_mode = save: auto | recompute is accepted with policy.logprob_kernel = liger, "
            "which computes the logits twice; set it to auto"
        )
    ranks = policy.tensor_parallel
    if ranks > 1 and shape.vocab_size % (VOCAB_MULTIPLE * ranks):
        yield (
            f"policy.logprob_kernel = liger: with policy.tensor_parallel = {ranks} it takes a vocabulary of "
            f"a multiple of {VOCAB_MULTIPLE * ranks}, which needs no padding, and this one has "
            f"{shape.vocab_size} tokens; set it to auto"
        )
