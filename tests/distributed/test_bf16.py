"""The policy's ranks in BF16: weights as engines compute with, gradients and the optimiser's in fp32."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from rlstack.config.schema import Policy, Precision, RunConfig
from tests.distributed.policy_ranks import FAMILIES, LAYOUTS, Job, read_metrics, run_jobs, seed_model
from tests.distributed.test_policy import sequences, shares

__all__ = ["sequences"]

pytestmark = pytest.mark.slow

NUM_STEPS, LR = 5, 0.003
HALVES = ("tp2", "pp2", "dp2")
# Of losses from 0.7 to 0.4 and norms from 0.5 to 0.2. Layouts add up the same numbers, but tensor parallelism
# rounds the part of each rank to BF16 before; fp32 differs by the rounding of weights and activations.
BETWEEN_LAYOUTS, FROM_FP32 = 0.003, 0.005


@pytest.fixture(scope="module")
def trained(sequences, tmp_path_factory) -> Path:
    """A folder for each of HALVES in BF16, and "fp32"."""
    folder = tmp_path_factory.mktemp("trained")
    model = seed_model(FAMILIES["llama"], folder.with_name(folder.name + "-model"))

    def job(layout: str, precision: str) -> Job:
        policy = {**LAYOUTS[layout], "model": str(model), "precision": precision, "step_timeout_s": 60.0}
        optimizer = {"lr": LR, "adam_eps": 1e-3, "clip_grad": 1.0}
        # So small a beta that the loss does not vanish within these steps.
        config = {"policy": policy, "optimizer": optimizer, "objective": {"name": "dpo", "beta": 0.02}}
        return Job(config, shares(sequences, layout, pairs=True), num_steps=NUM_STEPS)

    run_jobs(folder, {layout: job(layout, "bf16") for layout in HALVES} | {"fp32": job("dp2", "fp32")})
    return folder


def losses_and_norms(folder: Path) -> torch.Tensor:
    """[2, NUM_STEPS]"""
    metrics = [read_metrics(folder, step) for step in range(NUM_STEPS)]
    return torch.tensor([[step[key] for step in metrics] for key in ("loss/total", "grad_norm")])


@pytest.mark.parametrize("layout", HALVES)
def test_the_loss_falls_as_in_fp32(layout, trained) -> None:
    found, expected = losses_and_norms(trained / layout), losses_and_norms(trained / "fp32")
    assert found[0, -1] < found[0, 0] - 0.2
    torch.testing.assert_close(found, expected, rtol=FROM_FP32, atol=FROM_FP32)
    assert not torch.equal(found, expected)  # as they would be if precision changed nothing


@pytest.mark.parametrize("layout", HALVES[1:])
def test_layouts_agree(layout, trained) -> None:
    found, expected = losses_and_norms(trained / layout), losses_and_norms(trained / HALVES[0])
    torch.testing.assert_close(found, expected, rtol=BETWEEN_LAYOUTS, atol=BETWEEN_LAYOUTS)


@pytest.mark.parametrize("layout", HALVES)
def test_what_is_exported_is_bf16_and_near_what_fp32_came_to(layout, trained) -> None:
    exported = load_file(trained / layout / "exported" / "model.safetensors")
    expected = load_file(trained / "fp32" / "exported" / "model.safetensors")
    assert {tensor.dtype for tensor in exported.values()} == {torch.bfloat16}
    assert {tensor.dtype for tensor in expected.values()} == {torch.float32}
    for name, tensor in expected.items():
        # Adam's steps are as long as the learning rate, whichever way a small gradient points.
        torch.testing.assert_close(exported[name].float(), tensor, rtol=0.01, atol=2 * NUM_STEPS * LR)


@pytest.mark.parametrize(("precision", "is_off"), [(Precision.fp32, True), (Precision.bf16, False)])
def test_products_of_an_fp32_policy_are_not_in_tf32(
    precision: Precision, is_off: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rlstack.policy.worker import PolicyWorker

    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")
    PolicyWorker(RunConfig(policy=Policy(precision=precision)), rank=0, world_size=1)
    assert (os.environ["NVIDIA_TF32_OVERRIDE"] == "0") is is_off
