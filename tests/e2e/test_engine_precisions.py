"""Engines in another precision than the weights that they are sent, against engines that loaded them so."""

from __future__ import annotations

import pytest

from tests.e2e.resharding import fresh, make_model, sync

pytestmark = pytest.mark.slow

FP8 = {"rollout": {"precision": "fp8"}}


@pytest.mark.parametrize(
    "tensor_parallel",
    [1, pytest.param(2, marks=pytest.mark.thorough)],
)
def test_an_fp8_engine_quantises_what_arrives_as_it_does_what_it_loads(
    engine_pool, tmp_path, tensor_parallel
):
    old, new = (make_model(tmp_path / str(seed), "llama", seed) for seed in range(2))
    (engine,) = sync(engine_pool, old, [(tensor_parallel, "auto")], [(1, new), (2, old)], settings=FP8)
    assert engine.errors == []
    expected = fresh(engine_pool, new, tensor_parallel, "auto", settings=FP8)
    assert engine.tokens[1] == expected.tokens[0] != engine.tokens[0]
    # Of the weights and scales in FP8, which vLLM keeps as parameters on the CPU too.
    assert engine.checksums[1] == expected.checksums[0] != engine.checksums[0]
    assert (engine.tokens[2], engine.checksums[2]) == (engine.tokens[0], engine.checksums[0])
