"""A profiled step leaves a trace of every rank, in which the timeline's spans are by their names."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from transformers import LlamaConfig

from tests.distributed.policy_ranks import SHAPE, Job, run_jobs, seed_model
from tests.distributed.test_policy import micro_batch, sequences

__all__ = ["sequences"]


def names_in(path: Path) -> set[str]:
    with gzip.open(path, "rt") as file:
        return {event["name"] for event in json.load(file)["traceEvents"] if event.get("ph") == "X"}


@pytest.mark.slow
def test_a_profiled_step_leaves_a_readable_trace_of_every_rank(sequences, tmp_path: Path) -> None:
    model = str(seed_model(LlamaConfig(**SHAPE), tmp_path / "model"))
    config = {
        "run": {"dir": str(tmp_path / "runs"), "name": "traced"},
        "policy": {"model": model, "pipeline_parallel": 2, "step_timeout_s": 60.0},
        "objective": {"name": "dpo"},
        "telemetry": {"profile_steps": [2, 2]},
    }
    run_jobs(tmp_path, {"job": Job(config, [[micro_batch(sequences[:4], pairs=True)]], num_steps=2)})
    folder = tmp_path / "runs" / "traced" / "profile"
    files = sorted(path.name for path in folder.iterdir())
    assert files == ["policy-rank-0-step-2.json.gz", "policy-rank-1-step-2.json.gz"]
    for name in files:
        names = names_in(folder / name)
        assert {"reference", "forward", "backward", "gradients", "optimizer", "exchange"} <= names
        assert "aten::mm" in names
