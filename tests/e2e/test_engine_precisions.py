"""Engines in another precision than the weights that they are sent, against engines that loaded them so."""

from __future__ import annotations

import pytest

from tests.e2e.resharding import fresh, make_model, sync

pytestmark = pytest.mark.slow

FP8 = {"rollout": {"precision": "fp8"}}
# Of a policy in FP8 that leaves the first layer in BF16; there are two.
HALF = {**FP8, "policy": {"precision": "fp8", "fp8": {"bf16_layers_at_start": 1}}}
LINEARS = [f"self_attn.{x}_proj" for x in "qkvo"] + [f"mlp.{x}_proj" for x in ("gate", "up", "down")]


@pytest.mark.parametrize(
    ("tensor_parallel", "settings", "quantised"),
    [(1, HALF, [1]), pytest.param(2, FP8, [0, 1], marks=pytest.mark.thorough)],
    ids=["half", "whole"],
)
def test_an_fp8_engine_quantises_what_arrives_as_it_does_what_it_loads(
    engine_pool, tmp_path, tensor_parallel, settings, quantised
):
    old, new = (make_model(tmp_path / str(seed), "llama", seed) for seed in range(2))
    (engine,) = sync(engine_pool, old, [(tensor_parallel, "auto")], [(1, new), (2, old)], settings=settings)
    assert engine.errors == []
    names = {f"model.layers.{layer}.{linear}.weight" for layer in quantised for linear in LINEARS}
    assert set(engine.quantised) == names
    expected = fresh(engine_pool, new, tensor_parallel, "auto", settings=settings)
    assert engine.tokens[1] == expected.tokens[0] != engine.tokens[0]
    # Of the weights and scales in FP8, which vLLM keeps as parameters on the CPU too.
    assert engine.checksums[1] == expected.checksums[0] != engine.checksums[0]
    assert (engine.tokens[2], engine.checksums[2]) == (engine.tokens[0], engine.checksums[0])
