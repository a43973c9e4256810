"""The planner's memory model against what megatron-core really allocates, in every layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import LlamaConfig, PreTrainedConfig, Qwen2Config, Qwen3Config

from rlstack.config.schema import Precision, RunConfig
from rlstack.data.packing import pack
from rlstack.data.records import PreferencePair, Prompt, Rollout
from rlstack.policy.architecture import Architecture
from rlstack.tuning.parts import Layout
from rlstack.tuning.planning.activations import Layers
from rlstack.tuning.planning.assumptions import Assumptions
from rlstack.tuning.planning.demand import Demand
from rlstack.tuning.planning.hardware import gpu_of
from rlstack.tuning.planning.policy_memory import held_activations, model_states
from tests.distributed.policy_ranks import LAYOUTS, SHAPE, Job, run_jobs, seed_model

PROGRAM = ("-m", "tests.distributed.memory_job")
ROOT = Path(__file__).parents[2]
MODELS: dict[str, PreTrainedConfig] = {
    "llama": LlamaConfig(**SHAPE),
    "qwen2_tied": Qwen2Config(**SHAPE, tie_word_embeddings=True),
    "qwen3": Qwen3Config(**SHAPE, head_dim=64),
}
MIDDLE = LlamaConfig(  # 95 M parameters
    vocab_size=16000,
    hidden_size=768,
    intermediate_size=3072,
    num_hidden_layers=8,
    num_attention_heads=12,
    num_key_value_heads=4,
    head_dim=64,
    max_position_embeddings=256,
)
CASES = [*(f"{model}-{layout}" for model in MODELS for layout in LAYOUTS), "tiny-pp2", "middle-tp2"]
BF16_CASES = ["llama-bf16-one", "llama-bf16-dp2"]
NUM_TOKENS, NUM_MICRO_BATCHES = 64, 3  # of every micro-batch; of every data-parallel rank
ACTIVATIONS_TOLERANCE = 0.01  # what the loss keeps is not in the model


def job_of(folder: Path, layout: dict[str, Any]) -> Job:
    """One training step on pairs that are all of one length, each a micro-batch of its own."""
    prompt = Prompt(task="t", row=0, problem="", token_ids=tuple(range(10)))
    sequence = NUM_TOKENS // 2
    chosen, rejected = (
        Rollout(
            token_ids=tuple(range(first, first + sequence - 9)),
            generator_logprobs=(0.0,) * (sequence - 9),
            text="",
            finished=True,
            version=0,
        )
        for first in (20, 40)
    )
    data_parallel = layout.get("data_parallel", 1)
    batches = pack(
        [PreferencePair(prompt=prompt, chosen=chosen, rejected=rejected)] * NUM_MICRO_BATCHES * data_parallel,
        data_parallel=data_parallel,
        micro_batch_tokens=NUM_TOKENS,
        version=0,
    )
    policy = {"model": str(folder), "micro_batch_tokens": NUM_TOKENS, **layout}
    return Job(
        config={"policy": policy, "schedule": {"reference_sync": "never"}}, batches=batches, num_steps=1
    )


def demand_of(job: Job) -> Demand:
    """What the planner would be asked; lengths such that its largest micro-batch is the job's."""
    config = RunConfig()
    for key, value in job.config["policy"].items():
        setattr(config.policy, key, Precision(value) if key == "precision" else value)
    config.schedule.reference_sync = "never"
    config.rollout.max_new_tokens = NUM_TOKENS // 2 - 10
    config.batch.prompts_per_step = NUM_MICRO_BATCHES * job.config["policy"].get("data_parallel", 1)
    return Demand(
        config=config,
        architecture=Architecture.from_folder(Path(config.policy.model)),
        gpu=gpu_of("h200"),
        assumptions=Assumptions(prompt_tokens_max=10),
        intervals=(1,),
    )


def measure(folder: Path, jobs: dict[str, Job]) -> dict[str, list[dict[str, Any]]]:
    """What every rank of each job reported."""
    for world_size in {job.world_size for job in jobs.values()}:
        place = folder / f"{world_size}-ranks"
        place.mkdir()
        chosen = {name: job for name, job in jobs.items() if job.world_size == world_size}
        run_jobs(place, chosen, program=PROGRAM)
    return {
        name: [
            json.loads((folder / f"{job.world_size}-ranks" / name / f"memory-{rank}.json").read_text())
            for rank in range(job.world_size)
        ]
        for name, job in jobs.items()
    }


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Demand, Layout, list[dict[str, Any]]]]:
    """Every model in every layout, one in bf16, the tiny task's own, and one of 95 M parameters."""
    folder = tmp_path_factory.mktemp("memory")
    jobs = {
        f"{model}-{name}": job_of(seed, layout)
        for model, config in MODELS.items()
        for seed in [seed_model(config, folder / model)]
        for name, layout in LAYOUTS.items()
    }
    for name in ("one", "dp2"):
        jobs[f"llama-bf16-{name}"] = job_of(folder / "llama", {**LAYOUTS[name], "precision": "bf16"})
    jobs["tiny-pp2"] = job_of(ROOT / "configs/tiny/seed", LAYOUTS["pp2"])
    jobs["middle-tp2"] = job_of(seed_model(MIDDLE, folder / "middle"), LAYOUTS["tp2"])
    reports = measure(folder, jobs)
    return {name: (demand_of(job), layout_of(job), reports[name]) for name, job in jobs.items()}


def layout_of(job: Job) -> Layout:
    policy = job.config["policy"]
    axes = {f"{axis}_parallel": policy.get(f"{axis}_parallel", 1) for axis in ("tensor", "pipeline", "data")}
    return Layout(**axes, micro_batch_tokens=NUM_TOKENS)


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
        assert replicas == layout.data_parallel
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
