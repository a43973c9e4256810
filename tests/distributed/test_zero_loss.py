"""Steps that leave out rollouts without a loss are, on real ranks, as steps that compute them."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from rlstack.config.schema import CutOff, Objective, ObjectiveName
from rlstack.credit.assign import has_zero_loss
from rlstack.data.packing import pack
from rlstack.data.records import Prompt, Rollout, TrainingExample
from tests.distributed.policy_ranks import FAMILIES, LAYOUTS, SHAPE, Job, read_metrics, run_jobs, seed_model

# Decay moves the weights in a step whose gradient is 0 too, if the step is taken.
OPTIMIZER = {"lr": 0.01, "warmup_steps": 2, "adam_eps": 1e-3, "clip_grad": 0.5, "weight_decay": 0.1}
NUM_STEPS = 2
# Advantages of the rollouts of a step, of which every other one is cut off.
STEPS = {
    "some": (0.75, -0.25, -0.25, -0.25, 0.0, 0.0, 0.0, 0.0),
    "one": (0.0, 0.0, 1.5, 0.0, 0.0),  # leaves nothing to the second data-parallel rank
    "none": (0.0, 0.0, 0.0),
    "mask": (0.75, -0.25, -0.25, -0.25),
}
CASES = {"tp2": ("some", "mask"), "dp2": ("one", "none")}


def rollouts(advantages: tuple[float, ...]) -> list[TrainingExample]:
    """Of different lengths, the first finished and every other one cut off."""
    random = np.random.default_rng(0)
    lengths = [3 + 2 * i % 7 for i in range(len(advantages))]
    return [
        TrainingExample.of_rollout(
            prompt=Prompt(task="a", row=i, problem="", token_ids=(i + 1, 7, 9)),
            rollout=Rollout(
                token_ids=tuple(random.integers(0, SHAPE["vocab_size"], lengths[i]).tolist()),
                generator_logprobs=tuple(random.normal(-5, 1, lengths[i]).tolist()),
                text="",
                finished=i % 2 == 0,
                version=0,
            ),
            advantage=advantage,
        )
        for i, advantage in enumerate(advantages)
    ]


def jobs_of(name: str, config: dict[str, Any], *, data_parallel: int) -> dict[str, Job]:
    """A step that computes everything, and one that leaves out what has no loss."""
    objective = Objective(name=ObjectiveName.grpo, cut_off=CutOff.mask if name == "mask" else CutOff.train)
    examples = rollouts(STEPS[name])
    zeroed = [
        replace(example, advantages=(0.0,)) if has_zero_loss(example, objective) else example
        for example in examples
    ]
    sizes = {"data_parallel": data_parallel, "micro_batch_tokens": 24, "version": 0}
    fewer = pack(examples, has_zero_loss=partial(has_zero_loss, objective=objective), **sizes)
    left_out = sum(batch.num_zero_examples for rank in fewer for batch in rank)
    assert left_out == sum(example.advantages == (0.0,) for example in zeroed) > 0
    idle = [not any(batch.num_examples for batch in rank) for rank in fewer]
    assert sum(idle) == {"one": 1, "none": data_parallel}.get(name, 0)
    return {
        f"{name}-all": Job(config, pack(zeroed, **sizes), NUM_STEPS),
        f"{name}-fewer": Job(config, fewer, NUM_STEPS),
    }


@pytest.mark.slow
@pytest.mark.parametrize("layout", CASES)
def test_loss_gradient_and_weights_are_those_of_a_step_that_computes_all(layout: str, tmp_path: Path) -> None:
    policy = {**LAYOUTS[layout], "model": str(seed_model(FAMILIES["llama"], tmp_path / "model"))}
    config = {
        "policy": {**policy, "step_timeout_s": 60.0},
        "objective": {"name": "grpo"},
        "optimizer": OPTIMIZER,
    }
    num_ranks = policy.get("data_parallel", 1)
    jobs: dict[str, Job] = {}
    for name in CASES[layout]:
        jobs |= jobs_of(name, config, data_parallel=num_ranks)
    run_jobs(tmp_path, jobs)

    initial = load_file(tmp_path / "model" / "model.safetensors")
    for name in CASES[layout]:
        check_metrics(name, tmp_path / f"{name}-all", tmp_path / f"{name}-fewer")
        weights, found = (
            load_file(tmp_path / f"{name}-{which}" / "exported" / "model.safetensors")
            for which in ("all", "fewer")
        )
        torch.testing.assert_close(found, weights, atol=1e-6, rtol=0)
        assert max((weights[key] - initial[key]).abs().max() for key in weights) > 1e-4


def check_metrics(name: str, whole: Path, fewer: Path) -> None:
    of_tokens = {"policy/entropy", "mismatch/logprob_abs_mean", "mismatch/logprob_abs_max"}
    for step in range(NUM_STEPS):
        expected, found = read_metrics(whole, step), read_metrics(fewer, step)
        for key in ("loss/total", "loss/grpo", "grad_norm", "lr"):
            assert found[key] == pytest.approx(expected[key], rel=1e-6, abs=1e-6), (name, step, key)
        assert (found["grad_norm"] == 0) == (name == "none")
        assert found["tokens/trained"] < expected["tokens/trained"]
        if step == 0:  # of the rollouts that are trained on, where there are any
            assert of_tokens <= expected.keys()
            assert of_tokens & found.keys() == (set() if name == "none" else of_tokens)
