"""Fused kernels change loss, gradient and weights by rounding alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.distributed.policy_ranks import FAMILIES, Job, read_metrics, run_jobs, seed_model, stages
from tests.distributed.test_policy import micro_batch, sequences

__all__ = ["sequences"]

LAYOUTS: dict[str, dict[str, Any]] = {
    "one": {},
    "cp2": {"context_parallel": 2, "overlap_grad_reduce": True, "overlap_bucket_size": 8000},
}
OPTIMIZER = {"lr": 0.01, "adam_eps": 1e-3, "clip_grad": 0.0}
NUM_STEPS = 2


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_loss_gradient_and_weights_are_the_same_with_fused_kernels(layout, sequences, tmp_path: Path) -> None:
    model = str(seed_model(FAMILIES["llama"], tmp_path / "model"))
    batches = [[micro_batch(sequences[:6], pairs=True), micro_batch(sequences[6:], pairs=True)]]
    config = {
        "policy": {**LAYOUTS[layout], "model": model, "step_timeout_s": 60.0},
        "objective": {"name": "dpo", "beta": 0.5},
        "optimizer": OPTIMIZER,
    }
    program = ("-m", "tests.distributed.fusion_job")
    run_jobs(
        tmp_path, {name: Job(config, batches, NUM_STEPS) for name in ("plain", "fused")}, program=program
    )
    plain, fused = tmp_path / "plain", tmp_path / "fused"
    for step in range(NUM_STEPS):
        assert read_metrics(fused, step) == pytest.approx(read_metrics(plain, step), rel=1e-5, abs=1e-6)
        if layout == "one":
            expected = stages(plain, f"gradients-{step}")
            torch.testing.assert_close(stages(fused, f"gradients-{step}"), expected, atol=1e-6, rtol=1e-4)
    weights = [load_file(folder / "exported" / "model.safetensors") for folder in (plain, fused)]
    torch.testing.assert_close(weights[1], weights[0], atol=1e-6, rtol=1e-5)
