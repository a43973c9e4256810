"""run.deterministic: what it refuses by name, and what its processes compute in."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest
import torch

from rlstack.config.arithmetic import Arithmetic
from rlstack.config.deterministic import (
    deterministic_machine_problems,
    deterministic_problems,
    engine_environment,
    policy_environment,
)
from rlstack.config.load import load_config
from rlstack.config.schema import RewardEngine, RewardModel, RunConfig
from rlstack.config.validate import setting_problems

ROOT = Path(__file__).parents[2]
HOPPER = Arithmetic(compute_capability=(9, 0))


def settings(*overrides: str) -> RunConfig:
    return load_config(ROOT / "configs" / "quickstart.yaml", ["run.deterministic=true", *overrides])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["policy.precision=fp8"], "policy.precision = fp8: fp32 | bf16 is accepted with run.deterministic"),
        (["rollout.precision=fp8"], "rollout.precision = fp8: fp32 | bf16 is accepted with run.determinist"),
        (
            ["schedule.sync_interval=auto", "schedule.adaptive.max_sync_share=0.1"],
            "schedule.adaptive.max_sync_share = 0.1: null is accepted with run.deterministic = true, for it",
        ),
        (
            ["cluster.env.NCCL_ALGO=Tree"],
            "cluster.env.NCCL_ALGO = Tree: nothing is accepted with run.deterministic = true; leave it out",
        ),
    ],
)
def test_what_cannot_be_computed_again_is_refused_by_name(overrides: list[str], message: str) -> None:
    (problem,) = setting_problems(settings(*overrides))
    assert problem.startswith(message)
    assert setting_problems(settings(*overrides, "run.deterministic=false")) == []


def test_reward_models_are_those_of_transformers() -> None:
    config = settings()
    config.reward.models = [RewardModel(name="used", path="a"), RewardModel(name="unused", path="b")]
    config.data.tasks[0].reward = "used"
    (problem,) = deterministic_problems(config)
    assert problem.startswith("reward.models[0].engine = auto: transformers is accepted with run.determ")
    config.reward.models[0].engine = RewardEngine.transformers
    assert list(deterministic_problems(config)) == []


@pytest.mark.parametrize("overrides", [[], ["policy.precision=bf16"], ["schedule.sync_interval=auto"]])
def test_what_can_is_accepted(overrides: list[str]) -> None:
    assert setting_problems(settings(*overrides)) == []


def test_engines_need_kernels_that_do_not_depend_on_the_batch() -> None:
    ampere = replace(HOPPER, compute_capability=(8, 0))
    (problem,) = deterministic_machine_problems(settings(), ampere)
    assert problem.startswith(
        "run.deterministic = true: engines need a GPU of compute capability 9.0 or more"
    )
    assert "this has 8.0" in problem
    for machine in (HOPPER, Arithmetic()):
        assert list(deterministic_machine_problems(settings(), machine)) == []
    assert list(deterministic_machine_problems(settings("run.deterministic=false"), ampere)) == []


def test_policy_and_engines_share_what_nccl_does_not_reconcile() -> None:
    policy, engine = policy_environment(settings()), engine_environment(settings(), cuda=True)
    of_nccl = [{k: v for k, v in each.items() if k.startswith("NCCL_")} for each in (policy, engine)]
    assert of_nccl[0] == of_nccl[1] != {}
    assert (policy["CUBLAS_WORKSPACE_CONFIG"], policy["NVTE_ALLOW_NONDETERMINISTIC_ALGO"]) == (":4096:8", "0")
    assert engine["VLLM_BATCH_INVARIANT"] == "1"
    assert engine_environment(settings(), cuda=False) == {}
    off = settings("run.deterministic=false")
    assert policy_environment(off) == engine_environment(off, cuda=True) == {}


@pytest.mark.parametrize("is_on", [True, False])
def test_a_policys_process_computes_so(is_on: bool) -> None:
    from rlstack.model.known_models import KNOWN_MODELS
    from rlstack.policy.layers import transformer_config
    from rlstack.policy.worker import PolicyWorker

    config = settings(f"run.deterministic={str(is_on).lower()}")
    before = torch.are_deterministic_algorithms_enabled()
    try:
        with mock.patch.dict(os.environ, clear=False):
            PolicyWorker(config, rank=0, world_size=1)
            variable = os.environ.get("NVTE_ALLOW_NONDETERMINISTIC_ALGO")
        assert torch.are_deterministic_algorithms_enabled() == is_on
        assert transformer_config(KNOWN_MODELS["Llama-3.1-8B"], config.policy).deterministic_mode == is_on
        assert (variable == "0") == is_on
    finally:
        torch.use_deterministic_algorithms(before)
