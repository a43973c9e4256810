"""Logprobs in TF32, in which Transformer Engine multiplies fp32 unless it is turned off."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import torch
from torch import Tensor
from torch.nn import functional
from transformers import AutoModelForCausalLM

from rlstack.config.precision import probe_limit
from rlstack.config.schema import Precision, RunConfig

SEED = Path(__file__).parents[2] / "configs" / "tiny" / "seed"
NUM_TOKENS, LARGEST_ID = 256, 330
MISSING_BITS = 13  # of fp32's mantissa

linear = functional.linear


def tf32(numbers: Tensor) -> Tensor:
    """`numbers`, fp32, rounded to the nearest that TF32 has; ties to even."""
    bits = numbers.contiguous().view(torch.int32)
    half = (1 << (MISSING_BITS - 1)) - 1 + ((bits >> MISSING_BITS) & 1)
    return ((bits + half) & -(1 << MISSING_BITS)).view(torch.float32)


def test_rounding_keeps_ten_bits() -> None:
    numbers = torch.tensor([1.0, 1.0 + 2**-10, 1.0 + 2**-11, 1.0 + 3 * 2**-11, -1.0 - 2**-12, 0.0])
    assert tf32(numbers).tolist() == [1.0, 1.0 + 2**-10, 1.0, 1.0 + 2 * 2**-10, -1.0, 0.0]


@torch.no_grad()
def test_a_policy_in_tf32_would_fail_the_probe_of_fp32() -> None:
    model = AutoModelForCausalLM.from_pretrained(SEED, dtype=torch.float32).eval()
    torch.manual_seed(0)
    ids = torch.randint(3, LARGEST_ID, (1, NUM_TOKENS))

    def logprobs() -> Tensor:
        return torch.log_softmax(model(ids).logits[0, :-1], -1).gather(1, ids[0, 1:, None])[:, 0]

    def in_tf32(states: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """The product as a GPU makes it: of rounded factors, summed in fp32; the head's is in fp32."""
        if weight is model.lm_head.weight:
            return linear(states, weight, bias)
        return linear(tf32(states), tf32(weight), bias)

    exact = logprobs()
    with mock.patch.object(functional, "linear", in_tf32):
        rounded = logprobs()
    config = RunConfig()
    config.policy.precision = Precision.fp32
    assert float((rounded - exact).abs().mean()) > 2 * probe_limit(config)
