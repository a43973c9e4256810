"""vLLM on a GPU takes over weights while it samples, through CUDA IPC: one GPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.resharding import fresh, make_model, sync

pytestmark = pytest.mark.gpu

SETTINGS = {"rollout": {"precision": "bf16"}, "transfer": {"channel": "ipc"}}


@pytest.mark.parametrize(("family", "landing"), [("llama", "direct"), ("qwen3", "staged")])
def test_an_engine_becomes_a_fresh_one_of_the_new_weights_and_back(
    family: str, landing: str, engine_pool, tmp_path: Path
) -> None:
    old, new = (make_model(tmp_path / str(seed), family, seed) for seed in range(2))
    (engine,) = sync(engine_pool, old, [(1, landing)], [(1, new), (2, old)], settings=SETTINGS)
    assert engine.errors == []
    expected = fresh(engine_pool, new, 1, landing, settings=SETTINGS)
    assert engine.tokens[1] == expected.tokens[0] != engine.tokens[0]
    assert engine.checksums[1] == expected.checksums[0] != engine.checksums[0]
    assert (engine.tokens[2], engine.checksums[2]) == (engine.tokens[0], engine.checksums[0])
