"""The planner's figures of an engine against what vLLM allocates."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlstack.config.schema import Landing, RunConfig
from rlstack.model.architecture import Architecture
from rlstack.rollout.engine import Engine
from rlstack.tuning.planning.assumptions import Assumptions
from rlstack.tuning.planning.demand import Demand
from rlstack.tuning.planning.engine_memory import engine_worker_memory
from rlstack.tuning.planning.hardware import gpu_of

pytestmark = pytest.mark.slow

KV_CACHE_GIB = 0.1


def settings(folder: str) -> RunConfig:
    config = RunConfig()
    config.policy.model = folder
    config.rollout.kv_cache_gib = KV_CACHE_GIB
    config.transfer.landing = Landing.direct  # vLLM keeps no packed copies then, as on a GPU
    return config


def allocated(folder: str) -> dict[str, float]:
    """Bytes of the weights, of the cache, and the tokens that the cache holds."""
    engine = Engine(settings(folder), index=0)
    core = engine._llm.llm_engine.engine_core.engine_core
    runner = core.model_executor.driver_worker.worker.model_runner
    cache = engine._llm.llm_engine.vllm_config.cache_config
    report = {
        "weights": sum(p.numel() * p.element_size() for p in runner.model.parameters()),
        "kv_cache": sum(tensor.numel() * tensor.element_size() for tensor in runner.kv_caches),
        "kv_tokens": cache.num_gpu_blocks * cache.block_size,
    }
    engine.close()
    return report


@pytest.mark.parametrize("tied", [False, True])
def test_weights_and_cache_are_exact(small_llama, own_process, tied: bool) -> None:
    folder = small_llama(0, tied=tied)
    found = own_process.submit(allocated, str(folder)).result()
    demand = Demand(
        config=settings(str(folder)),
        architecture=Architecture.from_folder(Path(folder)),
        gpu=gpu_of("h200"),
        assumptions=Assumptions(),
        intervals=(1,),
    )
    memory = engine_worker_memory(demand, tensor_parallel=1)
    assert found["weights"] == memory.weights.value
    assert found["kv_cache"] == found["kv_tokens"] * memory.kv_bytes_per_token.value
    # As many blocks as go into the room that was given.
    assert found["kv_cache"] == pytest.approx(KV_CACHE_GIB * 2**30, rel=0.01)
