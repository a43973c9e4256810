"""A BF16 step on Transformer Engine's layers against transformers in fp32."""

from __future__ import annotations

import pytest
import torch

from tests.distributed.test_policy import sequences
from tests.gpu.policy_steps import expected_steps, take_steps

__all__ = ["sequences"]

pytestmark = pytest.mark.gpu


def test_a_step_in_bf16_is_that_of_fp32_but_for_rounding(sequences, tmp_path) -> None:
    found = take_steps(tmp_path, sequences, {"bf16": {"precision": "bf16"}})["bf16"]
    expected = expected_steps(tmp_path, sequences)
    assert 0 < float((found.logprobs - expected.logprobs).abs().mean()) < 0.03
    torch.testing.assert_close(found.losses, expected.losses, atol=0.02, rtol=0.02)
    torch.testing.assert_close(found.norms, expected.norms, atol=0.0, rtol=0.05)
