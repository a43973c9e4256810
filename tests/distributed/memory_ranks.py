"""Policies that memory_job.py trains on real ranks, and the planner's question about each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import LlamaConfig

from rlstack.config.schema import Precision, Recompute, RunConfig
from rlstack.data.packing import pack
from rlstack.data.records import Prompt, Rollout, TrainingExample
from rlstack.model.architecture import Architecture
from rlstack.tuning.parts import Layout
from rlstack.tuning.planning.assumptions import Assumptions
from rlstack.tuning.planning.demand import Demand
from rlstack.tuning.planning.hardware import gpu_of
from tests.distributed.policy_ranks import Job, run_jobs

PROGRAM = ("-m", "tests.distributed.memory_job")
NUM_MICRO_BATCHES = 4  # of every data-parallel rank; interleaved, a multiple of the stages
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


def job_of(folder: Path, layout: Mapping[str, Any], *, num_tokens: int, num_steps: int = 1) -> Job:
    """Steps on pairs that are all of one length, each a micro-batch of `num_tokens` of its own."""
    prompt = Prompt(task="t", row=0, problem="", token_ids=tuple(range(10)))
    sequence = num_tokens // 2
    chosen, rejected = (
        Rollout(
            token_ids=tuple((first + i) % 130 for i in range(sequence - 9)),
            generator_logprobs=(0.0,) * (sequence - 9),
            text="",
            finished=True,
            version=0,
        )
        for first in (20, 40)
    )
    data_parallel = layout.get("data_parallel", 1)
    batches = pack(
        [TrainingExample.of_pair(prompt=prompt, chosen=chosen, rejected=rejected)]
        * NUM_MICRO_BATCHES
        * data_parallel,
        data_parallel=data_parallel,
        micro_batch_tokens=num_tokens,
        version=0,
    )
    policy = {"model": str(folder), "micro_batch_tokens": num_tokens, **layout}
    config = {"policy": policy, "schedule": {"reference_sync": "never"}}
    return Job(config=config, batches=batches, num_steps=num_steps)


def demand_of(job: Job) -> Demand:
    """What the planner would be asked; lengths such that its largest micro-batch is the job's."""
    config = RunConfig()
    kinds = {"precision": Precision, "recompute": Recompute}
    for key, value in job.config["policy"].items():
        setattr(config.policy, key, kinds[key](value) if key in kinds else value)
    config.schedule.reference_sync = "never"
    config.rollout.max_new_tokens = config.policy.micro_batch_tokens // 2 - 10
    config.batch.prompts_per_step = NUM_MICRO_BATCHES * job.config["policy"].get("data_parallel", 1)
    return Demand(
        config=config,
        architecture=Architecture.from_folder(Path(config.policy.model)),
        gpu=gpu_of("h200"),
        assumptions=Assumptions(prompt_tokens_max=10),
        intervals=(1,),
    )


def measure(folder: Path, jobs: Mapping[str, Job]) -> dict[str, list[dict[str, Any]]]:
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


def layout_of(job: Job) -> Layout:
    return Layout.of(demand_of(job).config.policy)
