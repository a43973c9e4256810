"""Policies that policy_job.py trains on real ranks, and what it leaves of them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedConfig, Qwen2Config

from rlstack.data.records import MicroBatch
from rlstack.rendezvous import serve_store
from rlstack.telemetry.metrics import is_timing
from tests.ranks import run_ranks

PROGRAM = Path(__file__).with_name("policy_job.py")
LAYOUTS = {
    "one": {},
    "tp2": {"tensor_parallel": 2},
    "tp2_sp": {"tensor_parallel": 2, "sequence_parallel": True},
    "pp2": {"pipeline_parallel": 2},
    "tp2_pp2": {"tensor_parallel": 2, "pipeline_parallel": 2},
    "dp2": {"data_parallel": 2},
}
SHAPE = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 133,
    "max_position_embeddings": 64,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 1000.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 2.0,
    "original_max_position_embeddings": 16,
}
FAMILIES = {
    "llama": LlamaConfig(**SHAPE, rope_parameters=LLAMA3_ROPE),
    "qwen2_tied": Qwen2Config(**SHAPE, tie_word_embeddings=True),
}


@dataclass(frozen=True)
class Job:
    """A policy, started and stopped once; every step is on the same micro-batches."""

    config: dict[str, dict[str, Any]]  # of a RunConfig
    batches: list[list[MicroBatch]]  # of each data-parallel rank
    num_steps: int

    @property
    def world_size(self) -> int:
        policy = self.config["policy"]
        axes = ("tensor", "pipeline", "context", "data")
        return math.prod(policy.get(f"{axis}_parallel", 1) for axis in axes)

    def write(self, folder: Path, port: int) -> None:
        """Make `folder` with what policy_job.py reads; the ranks meet at `port`."""
        folder.mkdir()
        job = {
            "port": port,
            "world_size": self.world_size,
            "num_steps": self.num_steps,
            "config": self.config,
        }
        (folder / "job.json").write_text(json.dumps(job))
        for rank, share in enumerate(self.batches):
            for index, batch in enumerate(share):
                np.savez(folder / f"batches-{rank}-{index}.npz", **asdict(batch))


def run_jobs(folder: Path, jobs: Mapping[str, Job], *, program: Sequence[object] = (PROGRAM,)) -> None:
    """Run jobs one after the other; the results of each lie in the folder of its name.

    program: what a rank's Python is to run, with FOLDER and RANK after it. There are as many ranks as the
    largest job has; jobs of fewer are for a program that leaves out what it has no part in.
    """
    world_size = max(job.world_size for job in jobs.values())
    stores = [serve_store("127.0.0.1", timeout_s=60.0) for _ in jobs]
    for (name, job), store in zip(jobs.items(), stores, strict=True):
        job.write(folder / name, store.port)
    run_ranks([[*program, folder, rank] for rank in range(world_size)], timeout_s=240)


def stages(folder: Path, name: str) -> dict[str, torch.Tensor]:
    """The tensors that every pipeline stage left under `name`."""
    files = list(folder.glob(f"{name}-*.safetensors"))
    return {key: tensor for file in files for key, tensor in load_file(file).items()}


def read_metrics(folder: Path, step: int) -> dict[str, float]:
    """Those that depend neither on time nor on the layout."""
    metrics = json.loads((folder / f"metrics-{step}.json").read_text())
    return {k: value for k, value in metrics.items() if not is_timing(k) and k != "tokens/padding"}


def seed_model(config: PreTrainedConfig, folder: Path) -> Path:
    """A model with random weights in `folder`, which it gives back."""
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:  # the initial 0 and 1 of biases and norms would hide a mistake
            torch.nn.init.normal_(parameter, mean=float("norm" in name), std=0.2)
        else:
            torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(folder)
    return folder
