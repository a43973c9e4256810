"""Steps in FP8 with each recipe, and engines in FP8 that take over weights while they live."""

from __future__ import annotations

import pytest
import torch

from rlstack.config.schema import Fp8Recipe, Fp8Scaling
from tests.distributed.test_policy import sequences
from tests.e2e.resharding import fresh, make_model, sync
from tests.gpu.policy_steps import expected_steps, take_steps, unsupported

__all__ = ["sequences"]

pytestmark = pytest.mark.gpu

# Of losses, and of norms relative to them. Delayed scales are 1 in the first step.
TOLERANCES = {
    Fp8Recipe.blockwise: (0.1, 0.3),
    Fp8Recipe.tensorwise: (0.1, 0.3),
    Fp8Recipe.delayed: (0.3, 1.0),
}


@pytest.mark.parametrize("recipe", list(Fp8Recipe))
def test_a_step_in_fp8_is_near_that_of_fp32(recipe, sequences, tmp_path) -> None:
    if lacking := unsupported(recipe):
        pytest.skip("; ".join(lacking))
    found = take_steps(
        tmp_path,
        sequences,
        {"bf16": {"precision": "bf16"}, "fp8": {"precision": "fp8", "fp8": {"recipe": recipe.value}}},
    )
    fp8, expected = found["fp8"], expected_steps(tmp_path, sequences)
    assert not torch.equal(fp8.logprobs, found["bf16"].logprobs)  # as they would be without FP8
    assert float((fp8.logprobs - expected.logprobs).abs().mean()) < 0.2
    of_losses, of_norms = TOLERANCES[recipe]
    torch.testing.assert_close(fp8.losses, expected.losses, atol=of_losses, rtol=0.0)
    torch.testing.assert_close(fp8.norms, expected.norms, atol=0.0, rtol=of_norms)


@pytest.mark.parametrize("scaling", list(Fp8Scaling))
def test_an_fp8_engine_quantises_what_arrives_as_what_it_loads(scaling, engine_pool, tmp_path) -> None:
    old, new = (make_model(tmp_path / str(seed), "wide", seed) for seed in range(2))
    settings = {
        "rollout": {"precision": "fp8", "fp8_scaling": scaling.value},
        "transfer": {"channel": "ipc"},
    }
    (engine,) = sync(engine_pool, old, [(1, "auto")], [(1, new), (2, old)], settings=settings)
    assert engine.errors == []
    expected = fresh(engine_pool, new, 1, "auto", settings=settings)
    assert engine.tokens[1] == expected.tokens[0] != engine.tokens[0]
    assert engine.checksums[1] == expected.checksums[0] != engine.checksums[0]
    assert (engine.tokens[2], engine.checksums[2]) == (engine.tokens[0], engine.checksums[0])
