"""run.deterministic on real ranks: the same bits in every training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.distributed.policy_ranks import FAMILIES, LAYOUTS, Job, read_metrics, run_jobs, seed_model
from tests.distributed.test_policy import sequences, shares

__all__ = ["sequences"]

pytestmark = pytest.mark.slow

NUM_STEPS = 3
LAYOUT = "tp2_sp"  # with an embedding that is cut, and sums over ranks both ways


@pytest.fixture(scope="module")
def trained(sequences, tmp_path_factory) -> Path:
    """A folder for each of two deterministic trainings in BF16, and one that is not."""
    folder = tmp_path_factory.mktemp("trained")
    model = seed_model(FAMILIES["llama"], folder.with_name(folder.name + "-model"))

    def job(*, deterministic: bool) -> Job:
        config: dict[str, dict[str, Any]] = {
            "run": {"deterministic": deterministic},
            "policy": {**LAYOUTS[LAYOUT], "model": str(model), "precision": "bf16"},
            "optimizer": {"lr": 0.003, "adam_eps": 1e-3},
            "objective": {"name": "dpo"},
        }
        return Job(config, shares(sequences, LAYOUT, pairs=True), num_steps=NUM_STEPS)

    jobs = {"first": job(deterministic=True), "second": job(deterministic=True)}
    run_jobs(folder, {**jobs, "plain": job(deterministic=False)})
    return folder


def exported(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "exported" / "model.safetensors")


def test_two_trainings_are_bit_identical(trained) -> None:
    first, second = exported(trained / "first"), exported(trained / "second")
    assert first.keys() == second.keys()
    differing = [name for name in first if not torch.equal(first[name], second[name])]
    assert first and not differing
    for step in range(NUM_STEPS):
        assert read_metrics(trained / "first", step) == read_metrics(trained / "second", step)


def test_they_train_as_others_do(trained) -> None:
    """The embedding is looked up by other code, whose gradient is the same sum."""
    for step in range(NUM_STEPS):
        found, expected = (read_metrics(trained / name, step) for name in ("first", "plain"))
        assert found["loss/total"] == pytest.approx(expected["loss/total"], abs=2e-3)
        assert found["grad_norm"] == pytest.approx(expected["grad_norm"], rel=2e-2)
