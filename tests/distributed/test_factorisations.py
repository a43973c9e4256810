"""Whatever way four ranks share a model, loss, gradient and weights are those of one rank, in fp32.

One rank is held against transformers and torch's AdamW in test_policy.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import LlamaConfig, Qwen3Config

from rlstack.data.records import MicroBatch
from tests.distributed.policy_ranks import LLAMA3_ROPE, Job, read_metrics, run_jobs, seed_model
from tests.distributed.test_policy import OPTIMIZER, Sample, micro_batch, sequences

__all__ = ["sequences"]

NUM_RANKS, NUM_STEPS = 4, 2
PROGRAM = ("-m", "tests.distributed.factorisation_job")
SHAPE = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "vocab_size": 133,  # padded to 512 rows, of which some ranks of four have none
    "max_position_embeddings": 64,
}
MODELS = {
    "llama": LlamaConfig(**SHAPE, rope_parameters=LLAMA3_ROPE),
    "qwen3": Qwen3Config(**SHAPE | {"num_hidden_layers": 6}, head_dim=16, tie_word_embeddings=True),
}
OBJECTIVES = {
    "llama": {"name": "dpo", "beta": 0.5},
    "qwen3": {"name": "grpo", "kl_scale": 0.3, "entropy_scale": 0.05},
}


@dataclass(frozen=True)
class Case:
    """A layout as TP, PP, CP, DP, of the model named."""

    sizes: tuple[int, int, int, int]
    model: str = "llama"
    more: dict[str, Any] = field(default_factory=dict)  # settings of the policy

    @property
    def policy(self) -> dict[str, Any]:
        axes = ("tensor", "pipeline", "context", "data")
        return {f"{axis}_parallel": size for axis, size in zip(axes, self.sizes, strict=True)} | self.more


FACTORISATIONS = [
    (tp, pp, cp, NUM_RANKS // (tp * pp * cp))
    for tp in (1, 2, 4)
    for pp in (1, 2, 4)
    for cp in (1, 2, 4)
    if tp * pp * cp <= NUM_RANKS
]
CASES = {
    **{"tp{}_pp{}_cp{}_dp{}".format(*sizes): Case(sizes) for sizes in FACTORISATIONS},
    "sp_pp2": Case((2, 2, 1, 1), more={"sequence_parallel": True}),
    "vp2_dp2": Case((1, 2, 1, 2), more={"virtual_pipeline": 2, "recompute": "selective"}),
    "vp2_cp2_recompute": Case((1, 2, 2, 1), more={"virtual_pipeline": 2, "recompute": "full"}),
    "uneven": Case(
        (1, 2, 1, 2), more={"pipeline_layers": [1, 3], "recompute": "full", "recompute_layers": 2}
    ),
    "qwen3_tp2_pp2": Case((2, 2, 1, 1), "qwen3"),
    "qwen3_uneven_vp2_cp2": Case(
        (1, 2, 2, 1),
        "qwen3",
        {"virtual_pipeline": 2, "pipeline_layers": [2, 1, 1, 2]},
    ),
    "qwen3_sp_cp2": Case((2, 1, 2, 1), "qwen3", {"sequence_parallel": True}),
}


FURTHER = {
    "sp_cp2_recompute": Case((2, 1, 2, 1), more={"sequence_parallel": True, "recompute": "full"}),
    "vp2_sp": Case((2, 2, 1, 1), more={"virtual_pipeline": 2, "sequence_parallel": True}),
}


def test_all_factorisations_are_there() -> None:
    assert len(FACTORISATIONS) == 10
    assert {math.prod(case.sizes) for case in CASES.values()} == {NUM_RANKS}


def job(model: Path, case: Case, shares: list[list[MicroBatch]]) -> Job:
    return Job(
        {
            "policy": {**case.policy, "model": str(model), "step_timeout_s": 60.0},
            "objective": OBJECTIVES[case.model],
            # Clipped, so that a wrong norm shows in the weights too.
            "optimizer": OPTIMIZER | {"clip_grad": 0.05},
        },
        shares,
        num_steps=NUM_STEPS,
    )


def train(folder: Path, cases: dict[str, Case], sequences: Sequence[Sample]) -> None:
    """Leave in `folder` what each case, and each of its models on one rank, has come to."""
    names = sorted({case.model for case in cases.values()})
    models = {name: seed_model(MODELS[name], folder / "models" / name) for name in names}
    ones = {f"one-{name}": Case((1, 1, 1, 1), name) for name in names}

    def shares(case: Case) -> list[list[MicroBatch]]:
        """Four ragged micro-batches, one of them a filler, dealt to the data-parallel ranks."""
        cuts = [(0, 2), (2, 6), (6, 6), (6, 8)]
        batches = [micro_batch(sequences[low:high], pairs=case.model == "llama") for low, high in cuts]
        return [batches[rank :: case.sizes[-1]] for rank in range(case.sizes[-1])]

    jobs = {name: job(models[case.model], case, shares(case)) for name, case in (ones | cases).items()}
    run_jobs(folder, jobs, program=PROGRAM)


def check(folder: Path, name: str, case: Case) -> None:
    expected, found = folder / f"one-{case.model}", folder / name
    for step in range(NUM_STEPS):
        metrics, others = read_metrics(expected, step), read_metrics(found, step)
        assert others["loss/total"] == pytest.approx(metrics["loss/total"], abs=2e-5)
        assert others["grad_norm"] == pytest.approx(metrics["grad_norm"], rel=1e-4)
        for key in ("tokens/trained", "lr", "policy/entropy", "mismatch/logprob_abs_max"):
            assert others[key] == pytest.approx(metrics[key], abs=2e-5), key
    weights = load_file(expected / "exported" / "model.safetensors")
    exported = load_file(found / "exported" / "model.safetensors")
    torch.testing.assert_close(exported, weights, atol=2e-5, rtol=1e-4)
    gathered = load_file(found / "gathered.safetensors")
    torch.testing.assert_close(gathered, exported, atol=0, rtol=0)
    before = load_file(folder / "models" / case.model / "model.safetensors")
    assert max((weights[key] - before[key]).abs().max() for key in weights) > 100 * 2e-5


@pytest.fixture(scope="module")
def trained(sequences, tmp_path_factory) -> Path:
    folder: Path = tmp_path_factory.mktemp("trained")
    train(folder, CASES, sequences)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_loss_gradient_and_weights_are_those_of_one_rank(name, trained) -> None:
    check(trained, name, CASES[name])


@pytest.mark.thorough
def test_further_combinations_are_no_different(sequences, tmp_path) -> None:
    train(tmp_path, FURTHER, sequences)
    for name, case in FURTHER.items():
        check(tmp_path, name, case)
