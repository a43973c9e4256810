"""The policy's ranks against transformers and torch's AdamW, in every layout, in fp32."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from rlstack.data.records import MicroBatch
from rlstack.telemetry.timeline import Span
from tests.distributed.policy_ranks import (
    FAMILIES,
    LAYOUTS,
    SHAPE,
    Job,
    read_metrics,
    run_jobs,
    seed_model,
    stages,
)

OPTIMIZER = {"lr": 0.01, "warmup_steps": 2, "weight_decay": 0.1, "adam_eps": 1e-3, "clip_grad": 0.0}


@dataclass
class Sample:
    tokens: np.ndarray  # [t + 1]
    num_prompt: int
    generator_logprobs: np.ndarray  # [t]
    advantage: float


@pytest.fixture(scope="module")
def sequences() -> list[Sample]:
    """Eight: a pair is sequences 2i and 2i + 1."""
    random = np.random.default_rng(0)
    lengths = [9, 14, 6, 11, 17, 8, 5, 12]
    return [
        Sample(
            tokens=random.integers(0, SHAPE["vocab_size"], length),
            num_prompt=3,
            generator_logprobs=random.normal(-5, 1, length - 1).astype(np.float32),
            advantage=float(random.normal()),
        )
        for length in lengths
    ]


def micro_batch(chosen: Sequence[Sample], *, pairs: bool) -> MicroBatch:
    """Without sequences: a filler."""
    filler = not chosen
    parts = chosen or [Sample(np.array([1, 2]), 9, np.zeros(1, np.float32), 0.0)]
    lengths = [len(part.tokens) - 1 for part in parts]
    masks = [np.arange(1, len(part.tokens)) >= part.num_prompt for part in parts]
    mask = np.concatenate(masks)
    num_pairs = len(chosen) // 2 if pairs else 0
    return MicroBatch(
        token_ids=np.concatenate([part.tokens[:-1] for part in parts]).astype(np.int64),
        labels=np.concatenate([part.tokens[1:] for part in parts]).astype(np.int64),
        loss_mask=mask,
        generator_logprobs=np.concatenate([part.generator_logprobs for part in parts]) * mask,
        sequence_starts=np.cumsum([0, *lengths]).astype(np.int32),
        pairs=np.arange(2 * num_pairs, dtype=np.int32).reshape(-1, 2),
        pair_weights=np.ones(num_pairs, np.float32),
        advantages=np.array([0.0 if pairs else part.advantage for part in parts], np.float32),
        rollout_weights=np.full(len(parts), 0.0 if filler else 0.5 if pairs else 1.0, np.float32),
        num_examples=0 if filler else num_pairs or len(chosen),
        version=0,
    )


def logprobs_of(model: PreTrainedModel, sequence: Sample) -> torch.Tensor:
    """[t] of the labels."""
    tokens = torch.as_tensor(sequence.tokens)[None]
    logits = model(tokens[:, :-1]).logits[0]
    return torch.stack(
        [torch.log_softmax(row, 0)[label] for row, label in zip(logits, tokens[0, 1:], strict=True)]
    )


def oracle_loss(
    model: PreTrainedModel, frozen: PreTrainedModel, sequences: Sequence[Sample], objective: dict
) -> torch.Tensor:
    """The mean over examples, from the papers' formulas."""
    with torch.no_grad():
        reference = [logprobs_of(frozen, item)[item.num_prompt - 1 :] for item in sequences]
    policy = [logprobs_of(model, item)[item.num_prompt - 1 :] for item in sequences]
    if objective["name"] == "dpo":
        ratios = [(own - other).sum() for own, other in zip(policy, reference, strict=True)]
        margins = [objective["beta"] * (a - b) for a, b in zip(ratios[::2], ratios[1::2], strict=True)]
        return -sum(torch.log(1 / (1 + torch.exp(-margin))) for margin in margins) / len(margins)
    terms = []
    for item, own, other in zip(sequences, policy, reference, strict=True):
        kl = torch.exp(other - own) - (other - own) - 1
        terms.append(-item.advantage * torch.exp(own - own.detach()).sum() + objective["kl_scale"] * kl.sum())
    return sum(terms) / len(terms)


def oracle_steps(
    folder: Path, sequences: Sequence[Sample], objective: dict, *, clip_grad: float
) -> list[dict]:
    """Two steps of transformers and torch's AdamW, as OPTIMIZER asks."""
    model, reference = (AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32) for _ in range(2))
    decayed = [parameter for parameter in model.parameters() if parameter.dim() > 1]
    others = [parameter for parameter in model.parameters() if parameter.dim() == 1]
    groups = [
        {"params": decayed, "weight_decay": OPTIMIZER["weight_decay"]},
        {"params": others, "weight_decay": 0.0},
    ]
    adam = torch.optim.AdamW(groups, betas=(0.9, 0.95), eps=OPTIMIZER["adam_eps"])
    steps = []
    for step in range(2):
        adam.zero_grad()
        loss = oracle_loss(model, reference, sequences, objective)
        loss.backward()
        gradients = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), clip_grad or math.inf)
        lr = OPTIMIZER["lr"] * (step + 1) / OPTIMIZER["warmup_steps"]
        for group in adam.param_groups:
            group["lr"] = lr
        adam.step()
        weights = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        steps.append(
            {"loss": loss.item(), "norm": norm.item(), "lr": lr, "gradients": gradients, "weights": weights}
        )
    return steps


OBJECTIVES = {"dpo": {"name": "dpo", "beta": 0.5}, "grpo": {"name": "grpo", "kl_scale": 0.3}}


def shares(sequences: Sequence[Sample], layout: str, *, pairs: bool) -> list[list[MicroBatch]]:
    """Two unequal micro-batches; on two data-parallel ranks each comes with a filler."""
    first, second = micro_batch(sequences[:6], pairs=pairs), micro_batch(sequences[6:], pairs=pairs)
    if layout != "dp2":
        return [[first, second]]
    filler = micro_batch([], pairs=pairs)
    return [[first, filler], [filler, second]]


@pytest.mark.slow
@pytest.mark.parametrize(
    "layout",
    # One rank is what test_factorisations.py holds all other layouts to.
    [
        pytest.param(name, marks=[pytest.mark.thorough] if name not in ("one", "pp2") else [])
        for name in LAYOUTS
    ],
)
def test_loss_gradient_and_step_are_those_of_transformers(layout, sequences, tmp_path) -> None:
    model, policy = seed_model(FAMILIES["llama"], tmp_path / "model"), LAYOUTS[layout]
    # Where the gradients are whole they are compared, and must not be clipped.
    clip_grad = 0.05 if layout == "dp2" else 0.0
    jobs = {
        name: Job(
            {
                "policy": {**policy, "model": str(model), "step_timeout_s": 60.0},
                "objective": objective,
                "optimizer": OPTIMIZER | {"clip_grad": clip_grad},
            },
            shares(sequences, layout, pairs=name == "dpo"),
            num_steps=2,
        )
        for name, objective in OBJECTIVES.items()
    }
    run_jobs(tmp_path, jobs)

    for name, objective in OBJECTIVES.items():
        folder = tmp_path / name
        steps = oracle_steps(model, sequences, objective, clip_grad=clip_grad)
        for step, expected in enumerate(steps):
            metrics = read_metrics(folder, step)
            assert metrics["loss/total"] == pytest.approx(expected["loss"], abs=2e-5)
            assert metrics["grad_norm"] == pytest.approx(expected["norm"], rel=1e-4)
            assert metrics["lr"] == pytest.approx(expected["lr"])
            assert metrics["tokens/trained"] == sum(len(item.tokens) - 1 for item in sequences)
            if layout != "dp2":
                gradients = stages(folder, f"gradients-{step}")
                torch.testing.assert_close(gradients, expected["gradients"], atol=1e-5, rtol=1e-3)
        exported = AutoModelForCausalLM.from_pretrained(folder / "exported", dtype="auto")
        weights = dict(exported.named_parameters())
        torch.testing.assert_close(weights, steps[-1]["weights"], atol=2e-5, rtol=1e-4)
        check_mismatch(folder, model, sequences)
        check_timeline(folder, num_stages=policy.get("pipeline_parallel", 1))
    assert read_metrics(tmp_path / "dpo", 0)["loss/total"] == pytest.approx(math.log(2), abs=1e-6)


def check_timeline(folder: Path, *, num_stages: int) -> None:
    """Every rank notes what a step is made of, and what of it was waiting for another pipeline stage."""
    files = list(folder.glob("spans-*.json"))
    assert files
    for file in files:
        spans = [Span(*fields) for fields in json.loads(file.read_text())]
        phases = [span.phase for span in spans if span.reason is None]
        assert phases.count("forward") == phases.count("backward") == 2  # micro-batches
        assert phases.count("optimizer") == 1
        assert phases.count("reference") == (file.name.startswith("spans-1"))
        waits = [span for span in spans if span.reason == "pipeline_bubble"]
        assert bool(waits) == (num_stages > 1)
        computing = [span for span in spans if span.phase in ("forward", "backward", "optimizer")]
        assert all(wait.end_s <= s.start_s or wait.start_s >= s.end_s for wait in waits for s in computing)
        (gradients,) = [span for span in spans if span.phase == "gradients"]
        inside_a_wait = [w for w in waits if w.start_s <= gradients.start_s and gradients.end_s <= w.end_s]
        assert bool(inside_a_wait) == (num_stages > 1)  # the inner one counts


def check_mismatch(folder: Path, model: Path, sequences: Sequence[Sample]) -> None:
    """The rollouts are of version 0: the policy's at the first step, the reference's at the second."""
    seed = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    differences = [
        logprobs_of(seed, item).detach() - torch.as_tensor(item.generator_logprobs) for item in sequences
    ]
    expected = torch.cat(
        [part[item.num_prompt - 1 :].abs() for part, item in zip(differences, sequences, strict=True)]
    )
    first, second = read_metrics(folder, 0), read_metrics(folder, 1)
    for metrics in (first, second):
        assert metrics["mismatch/logprob_abs_mean"] == pytest.approx(expected.mean().item(), abs=1e-5)
        assert metrics["mismatch/logprob_abs_max"] == pytest.approx(expected.max().item(), abs=1e-5)
    assert first["drift/logprob_abs_max"] == first["mismatch/logprob_abs_max"]
    assert abs(second["drift/logprob_abs_mean"] - second["mismatch/logprob_abs_mean"]) > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["tp2_sp", "pp2"])
def test_a_run_logs_the_same_with_every_logprob_kernel_and_mode(layout, sequences, tmp_path) -> None:
    model = seed_model(FAMILIES["qwen2_tied"], tmp_path / "model")
    ways = {
        "reference": {"logprob_kernel": "reference"},
        "save": {"logprob_kernel": "torch", "logprob_mode": "save"},
        "recompute": {"logprob_kernel": "torch", "logprob_mode": "recompute"},
    }
    if layout == "pp2" and find_spec("liger_kernel"):  # of several ranks it takes no padded vocabulary
        ways["liger"] = {"logprob_kernel": "liger"}
    jobs = {
        name: Job(
            {
                "policy": {**LAYOUTS[layout], **way, "model": str(model), "step_timeout_s": 60.0},
                "objective": OBJECTIVES["grpo"],
                "optimizer": OPTIMIZER,
            },
            shares(sequences, layout, pairs=False),
            num_steps=5,
        )
        for name, way in ways.items()
    }
    run_jobs(tmp_path, jobs)
    for step in range(5):
        expected = read_metrics(tmp_path / "reference", step)
        assert expected["grad_norm"] > 0.1
        for name in ways.keys() - {"reference"}:
            assert read_metrics(tmp_path / name, step) == pytest.approx(expected, abs=1e-5, rel=1e-5)
