"""A policy's steps on one GPU beside those of transformers and torch's AdamW in fp32."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, LlamaConfig

from rlstack.config.arithmetic import Arithmetic
from rlstack.config.schema import Fp8, Fp8Recipe, Policy, Precision
from rlstack.config.validate_precision import policy_machine_problems
from tests.distributed.policy_ranks import SHAPE, Job, run_jobs, seed_model
from tests.distributed.test_policy import OPTIMIZER, Sample, logprobs_of, oracle_steps, shares

# Every matrix in blocks of 128 x 128.
MODEL = LlamaConfig(
    **SHAPE | {"hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 4}, head_dim=64
)
DPO = {"name": "dpo", "beta": 0.01}  # so little that a step does not make the losses vanish
NUM_STEPS = 2


@dataclass(frozen=True)
class Steps:
    """What is compared: of the model before the first step, and of each step."""

    logprobs: torch.Tensor  # [tokens]
    losses: list[float]
    norms: list[float]


def unsupported(recipe: Fp8Recipe) -> list[str]:
    """What this machine lacks for it."""
    policy = Policy(precision=Precision.fp8, fp8=Fp8(recipe=recipe))
    return list(policy_machine_problems(policy, Arithmetic.detect(has_gpus=True)))


def take_steps(
    folder: Path, sequences: Sequence[Sample], policies: dict[str, dict[str, Any]]
) -> dict[str, Steps]:
    """Of each of `policies`, which are settings, by name; they start in one process, one after the other."""
    model = _rounded(seed_model(MODEL, folder / "model"))
    batches = shares(sequences, "one", pairs=True)
    jobs = {
        name: Job(
            {"policy": {"model": str(model), **policy}, "objective": DPO, "optimizer": OPTIMIZER},
            batches,
            num_steps=NUM_STEPS,
        )
        for name, policy in policies.items()
    }
    (folder / "jobs").mkdir()
    run_jobs(folder / "jobs", jobs)
    return {name: _read(folder / "jobs" / name) for name in policies}


def expected_steps(folder: Path, sequences: Sequence[Sample]) -> Steps:
    """From the model that take_steps left in `folder`, on the CPU."""
    model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)
    with torch.no_grad():
        logprobs = torch.cat([logprobs_of(model, sequence) for sequence in sequences])
    steps = oracle_steps(folder / "model", sequences, DPO, clip_grad=0.0)
    return Steps(logprobs, [step["loss"] for step in steps], [step["norm"] for step in steps])


def _rounded(folder: Path) -> Path:
    """The weights as BF16 holds them, so that what is compared is the arithmetic."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model.to(torch.bfloat16).float().save_pretrained(folder)
    return folder


def _read(folder: Path) -> Steps:
    logprobs = load_file(folder / "logprobs.safetensors")
    metrics = [json.loads((folder / f"metrics-{step}.json").read_text()) for step in range(NUM_STEPS)]
    return Steps(
        torch.cat([logprobs[str(i)] for i in range(len(logprobs))]),
        [step["loss/total"] for step in metrics],
        [step["grad_norm"] for step in metrics],
    )
