"""The planner's memory model against what megatron-core really allocates, in every layout."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from transformers import LlamaConfig, PreTrainedConfig, Qwen2Config, Qwen3Config

from rlstack.tuning.parts import Layout
from rlstack.tuning.planning.activation_memory import held_activations
from rlstack.tuning.planning.activations import Layers
from rlstack.tuning.planning.demand import Demand
from rlstack.tuning.planning.host_memory import host_memory
from rlstack.tuning.planning.policy_memory import model_states
from tests.distributed.memory_ranks import MIDDLE, NUM_MICRO_BATCHES, demand_of, job_of, layout_of, measure
from tests.distributed.policy_ranks import LAYOUTS, SHAPE, seed_model

ROOT = Path(__file__).parents[2]
MODELS: dict[str, PreTrainedConfig] = {
    "llama": LlamaConfig(**SHAPE),
    "qwen2_tied": Qwen2Config(**SHAPE, tie_word_embeddings=True),
    "qwen3": Qwen3Config(**SHAPE, head_dim=64),
}
VP = {"pipeline_parallel": 2, "virtual_pipeline": 2}
FURTHER: dict[str, dict[str, Any]] = {  # of a Llama of four layers
    "selective": {"recompute": "selective"},
    "selective_vp2": {**VP, "recompute": "selective"},
    "full_tp2_sp": {**LAYOUTS["tp2_sp"], "recompute": "full"},
    "full_vp2": {**VP, "recompute": "full"},
    "uneven": {**LAYOUTS["pp2"], "pipeline_layers": [3, 1]},
    "two_layers_full": {
        **LAYOUTS["pp2"],
        "pipeline_layers": [3, 1],
        "recompute": "full",
        "recompute_layers": 2,
    },
    "full_cp2": {"context_parallel": 2, "recompute": "full"},
}
CASES = [
    *(f"{model}-{layout}" for model in MODELS for layout in LAYOUTS),
    *(f"four-{name}" for name in FURTHER),
    "tiny-pp2",
    "middle-tp2",
]
BF16_CASES = ["llama-bf16-one", "llama-bf16-dp2"]
NUM_TOKENS = 64  # of every micro-batch
# Not in the model: what the loss keeps, and with full recomputation the sines and cosines of one sequence.
ACTIVATIONS_TOLERANCE = 0.015


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Demand, Layout, list[dict[str, Any]]]]:
    """Every model in every layout, one in bf16, the tiny task's own, and one of 95 M parameters."""
    folder = tmp_path_factory.mktemp("memory")
    job = partial(job_of, num_tokens=NUM_TOKENS)
    jobs = {
        f"{model}-{name}": job(seed, layout)
        for model, config in MODELS.items()
        for seed in [seed_model(config, folder / model)]
        for name, layout in LAYOUTS.items()
    }
    for name in ("one", "dp2"):
        jobs[f"llama-bf16-{name}"] = job(folder / "llama", {**LAYOUTS[name], "precision": "bf16"})
    four = seed_model(LlamaConfig(**{**SHAPE, "num_hidden_layers": 4}), folder / "four")
    jobs |= {f"four-{name}": job(four, layout) for name, layout in FURTHER.items()}
    jobs["tiny-pp2"] = job(ROOT / "configs/tiny/seed", LAYOUTS["pp2"])
    jobs["middle-tp2"] = job(seed_model(MIDDLE, folder / "middle"), LAYOUTS["tp2"])
    reports = measure(folder, jobs)
    return {name: (demand_of(job), layout_of(job), reports[name]) for name, job in jobs.items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", [*CASES, *BF16_CASES])
def test_weights_gradients_optimiser_and_reference_are_exact(cases, name: str) -> None:
    demand, layout, reports = cases[name]
    for report in reports:
        states, details = model_states(demand, layout, stage=report["stage"])
        weights, gradients, optimiser, reference = (figure.value for figure in states)
        num_parameters = details[-2].value
        assert report["elements"] == num_parameters
        assert report["parameters"] == weights
        assert report["gradients"] == gradients
        assert report["reference"] == reference
        # Ranks hold the moments of equal shares of the buffer, of which one share ends in padding.
        of_stage = [other for other in reports if other["stage"] == report["stage"]]
        replicas = len(of_stage) // layout.tensor_parallel
        total = sum(other["optimiser"] for other in of_stage) / layout.tensor_parallel
        assert replicas == layout.replicas
        assert total == (12 if demand.itemsize == 2 else 8) * num_parameters
        assert max(other["optimiser"] for other in of_stage) == optimiser


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_activations_are_what_autograd_keeps(cases, name: str) -> None:
    demand, layout, reports = cases[name]
    assert demand.largest_micro_batch == NUM_TOKENS
    assert demand.most_micro_batches(layout) == NUM_MICRO_BATCHES
    for report in reports:
        held, _ = held_activations(demand, layout, stage=report["stage"], layers=Layers.local)
        assert held.value == pytest.approx(report["saved"], rel=ACTIVATIONS_TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*CASES, *BF16_CASES])
def test_a_checkpoint_takes_a_rank_what_the_plan_of_a_node_says(cases, name: str) -> None:
    demand, layout, reports = cases[name]
    for report in reports:
        planned = {
            figure.name: figure.value / layout.num_ranks
            for figure in host_memory(demand, layout, parameters=report["elements"]).parts
        }
        of_stage = [other for other in reports if other["stage"] == report["stage"]]
        # The replicas share it; what another stage or tensor rank writes is no replica's.
        total = sum(other["checkpoint"] for other in of_stage) / layout.tensor_parallel
        assert 0 < total <= 12 * report["elements"]
        most = planned["a checkpoint's optimiser"] + planned["the largest tensor, whole"] * layout.num_ranks
        assert report["checkpoint"] <= most
        if layout.num_ranks == 1:
            assert report["checkpoint"] == planned["a checkpoint's optimiser"]
