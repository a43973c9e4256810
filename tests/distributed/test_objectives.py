"""Every objective's gradient through the policy's ranks against transformers and the papers' formulas."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from rlstack.config.schema import Objective, ObjectiveName
from rlstack.data.packing import pack
from rlstack.data.records import MicroBatch, Prompt, Rollout, TrainingExample
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
from tests.objectives import Answer, Comparison, objective_loss

ENTROPY, NLL = {"entropy_scale": 0.2}, {"nll_scale": 0.4}
OBJECTIVES = {
    "dpo": {"name": "dpo", "beta": 0.5},
    "dpo_all": {"name": "dpo", "beta": 5.0, **ENTROPY, **NLL, "length_normalised": True},
    "group_dpo": {"name": "group_dpo", "beta": 0.5},
    "group_dpo_all": {"name": "group_dpo", "beta": 0.5, **ENTROPY, **NLL, "nll_length_normalised": False},
    "grpo": {"name": "grpo"},
    "grpo_tis": {"name": "grpo", "tis_cap": 1.3, "kl_scale": 0.3, **ENTROPY},
    "grpo_clip": {"name": "grpo", "clip_ratio_low": 0.2, "clip_ratio_high": 0.3},
    "combined": {"name": "group_dpo_grpo", "beta": 0.5, "alpha": 0.3},
    "combined_all": {
        "name": "group_dpo_grpo",
        "beta": 0.5,
        "alpha": 0.3,
        "kl_scale": 0.3,
        "clip_ratio_high": 0.3,
        **ENTROPY,
        **NLL,
    },
}
OPTIMIZER = {"lr": 0.01, "adam_eps": 1e-3, "clip_grad": 0.0}


def rollout(random: np.random.Generator, length: int) -> Rollout:
    return Rollout(
        token_ids=tuple(random.integers(0, SHAPE["vocab_size"], length).tolist()),
        generator_logprobs=tuple(random.normal(-5, 1, length).tolist()),
        text="",
        finished=True,
        version=0,
    )


def given_groups() -> list[TrainingExample]:
    """Two: three rollouts with two pairs, two with one."""
    random = np.random.default_rng(0)
    lengths, pairs = [[6, 11, 3], [8, 5]], [((1, 0), (1, 2)), ((0, 1),)]
    return [
        TrainingExample(
            prompt=Prompt(task="a", row=i, problem="", token_ids=(i + 1, 7, 9)),
            rollouts=tuple(rollout(random, length) for length in lengths[i]),
            rewards=(0.0,) * len(lengths[i]),
            pairs=pairs[i],
            advantages=tuple(random.normal(size=len(lengths[i])).tolist()),
        )
        for i in range(2)
    ]


def examples_for(name: ObjectiveName, groups: Sequence[TrainingExample]) -> list[TrainingExample]:
    match name:
        case ObjectiveName.dpo:
            return [
                TrainingExample.of_pair(prompt=g.prompt, chosen=g.rollouts[c], rejected=g.rollouts[r])
                for g in groups
                for c, r in g.pairs
            ]
        case ObjectiveName.grpo:
            return [
                TrainingExample.of_rollout(prompt=g.prompt, rollout=rollout, advantage=advantage)
                for g in groups
                for rollout, advantage in zip(g.rollouts, g.advantages, strict=True)
            ]
        case _:
            return list(groups)


def answers_of(model: PreTrainedModel, frozen: PreTrainedModel, group: TrainingExample) -> list[Answer]:
    answers = []
    for rollout, advantage in zip(group.rollouts, group.advantages, strict=True):
        tokens = torch.tensor([[*group.prompt.token_ids.tolist(), *rollout.token_ids.tolist()]])
        skip, labels = len(group.prompt.token_ids) - 1, torch.tensor(rollout.token_ids.tolist())[:, None]
        logprobs = model(tokens[:, :-1]).logits[0, skip:].log_softmax(-1)
        with torch.no_grad():
            reference = frozen(tokens[:, :-1]).logits[0, skip:].log_softmax(-1)
        answers.append(
            Answer(
                policy=logprobs.gather(1, labels)[:, 0],
                entropy=-(logprobs.exp() * logprobs).sum(-1),
                reference=reference.gather(1, labels)[:, 0],
                generator=torch.tensor(rollout.generator_logprobs, dtype=torch.float64),
                advantage=advantage,
            )
        )
    return answers


def oracle(
    model: PreTrainedModel, frozen: PreTrainedModel, groups: Sequence[TrainingExample], objective: Objective
) -> tuple[float, dict[str, torch.Tensor]]:
    """The loss of a step and its gradient by the weights."""
    comparisons = [Comparison(answers_of(model, frozen, group), list(group.pairs)) for group in groups]
    if objective.name is ObjectiveName.grpo:
        comparisons = [Comparison([answer], []) for whole in comparisons for answer in whole.answers]
    elif objective.name is ObjectiveName.dpo:
        comparisons = [Comparison(whole.answers, [pair]) for whole in comparisons for pair in whole.pairs]
    model.zero_grad()
    loss = objective_loss(comparisons, objective)
    loss.backward()
    return loss.item(), {name: parameter.grad.float() for name, parameter in model.named_parameters()}


def packed(objective: Objective) -> list[list[MicroBatch]]:
    examples = examples_for(objective.name, given_groups())
    batches = pack(examples, data_parallel=1, micro_batch_tokens=32, version=0)
    assert len(batches[0]) > 1
    return batches


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["tp2", "pp2"])
def test_gradients_are_those_of_the_formula(layout: str, tmp_path: Path) -> None:
    model = seed_model(FAMILIES["llama"], tmp_path / "model")
    objectives = {n: Objective(**o | {"name": ObjectiveName(o["name"])}) for n, o in OBJECTIVES.items()}
    jobs = {
        name: Job(
            {
                "policy": {**LAYOUTS[layout], "model": str(model), "step_timeout_s": 60.0},
                "objective": OBJECTIVES[name],
                "optimizer": OPTIMIZER,
            },
            packed(objective),
            num_steps=2,
        )
        for name, objective in objectives.items()
    }
    run_jobs(tmp_path, jobs)

    frozen, trained = (AutoModelForCausalLM.from_pretrained(model, dtype=torch.float64) for _ in range(2))
    for name, objective in objectives.items():
        weights = frozen.state_dict()
        for step in range(2):  # at the second one the reference differs from the policy
            trained.load_state_dict(weights)
            loss, gradients = oracle(trained, frozen, given_groups(), objective)
            assert read_metrics(tmp_path / name, step)["loss/total"] == pytest.approx(
                loss, rel=1e-5, abs=1e-5
            )
            found = stages(tmp_path / name, f"gradients-{step}")
            torch.testing.assert_close(found, gradients, atol=1e-5, rtol=1e-3)
            weights = stages(tmp_path / name, f"weights-{step}")


@pytest.mark.slow
def test_a_reference_that_follows_needs_no_weights_of_its_own(tmp_path: Path) -> None:
    """Steps with a copy and steps without one are the same, bit by bit; the job syncs after each."""
    model = seed_model(FAMILIES["llama"], tmp_path / "model")
    intervals = {"copied": 1_000, "followed": 1}
    jobs = {
        name: Job(
            {
                "schedule": {"reference_sync": interval},
                "policy": {"model": str(model), "step_timeout_s": 60.0},
                "objective": OBJECTIVES["combined_all"],
                "optimizer": OPTIMIZER,
            },
            packed(Objective(name=ObjectiveName.group_dpo_grpo)),
            num_steps=3,
        )
        for name, interval in intervals.items()
    }
    run_jobs(tmp_path, jobs)
    for step in range(3):
        assert read_metrics(tmp_path / "copied", step) == read_metrics(tmp_path / "followed", step)
    copied, followed = (stages(tmp_path / name, "weights-2") for name in jobs)
    torch.testing.assert_close(copied, followed, atol=0, rtol=0)
