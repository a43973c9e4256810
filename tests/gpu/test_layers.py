"""Transformer Engine's layers on a GPU beside megatron-core's local ones on the CPU: one GPU, BF16."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.distributed.policy_ranks import seed_model
from tests.gpu.policy_steps import MODEL

pytestmark = pytest.mark.gpu

ROOT = Path(__file__).parents[2]
MEAN_ERROR = 0.03  # nats, of BF16
# After a step: Adam's first step goes by signs, and those of the smallest gradients are rounding's.
STEP_ERROR = 0.15


# What of megatron-core finds Transformer Engine would use its kernels, which know no CPU.
WITHOUT_GPU = """
import runpy, sys
sys.modules["transformer_engine"] = None
runpy.run_module("tests.gpu.layers_job", run_name="__main__")
"""


def run(folder: Path, name: str, checkpoint: Path | None = None, *, gpu: bool) -> dict[str, Any]:
    """What layers_job.py left under `name`."""
    environment = os.environ if gpu else {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    program = ["-m", "tests.gpu.layers_job"] if gpu else ["-c", WITHOUT_GPU]
    done = subprocess.run(
        [sys.executable, *program, folder, name, *([checkpoint] if checkpoint else [])],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((folder / f"{name}.json").read_text())


def difference(ones: list[float], others: list[float]) -> float:
    """The mean of the absolute ones."""
    return sum(abs(a - b) for a, b in zip(ones, others, strict=True)) / len(ones)


def test_a_policy_is_the_same_on_cpu_and_gpu_and_goes_from_one_to_the_other(tmp_path: Path) -> None:
    seed_model(MODEL, tmp_path / "model")
    cpu = run(tmp_path, "cpu", gpu=False)
    gpu = run(tmp_path, "gpu", gpu=True)
    assert any(kind.startswith("TE") for kind in gpu["kinds"])
    assert "PackedAttention" in cpu["kinds"]
    assert difference(cpu["before"], gpu["before"]) < MEAN_ERROR
    assert difference(cpu["after"], gpu["after"]) < STEP_ERROR
    assert difference(cpu["before"], cpu["after"]) > 2 * STEP_ERROR, "the step changed too little to tell"
    for name, made, where in (("to-gpu", cpu, True), ("to-cpu", gpu, False)):
        (checkpoint,) = (tmp_path / ("cpu" if where else "gpu")).glob("step-*")
        moved = run(tmp_path, name, checkpoint, gpu=where)
        assert difference(moved["before"], made["before"]) < MEAN_ERROR
        assert difference(moved["after"], made["after"]) < MEAN_ERROR
