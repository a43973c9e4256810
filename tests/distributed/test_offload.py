"""An optimiser whose state lies in host memory between steps changes no bit of what is trained and saved."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import LlamaConfig

from tests.distributed.policy_ranks import SHAPE, Job, read_metrics, run_jobs, seed_model
from tests.distributed.test_policy import micro_batch, sequences

__all__ = ["sequences"]

PRECISIONS = ("fp32", "bf16")  # with the optimiser's weights in the model's memory, and beside it


@pytest.mark.slow
def test_weights_are_the_same_to_the_bit_through_steps_and_a_checkpoint(sequences, tmp_path: Path) -> None:
    model = str(seed_model(LlamaConfig(**SHAPE), tmp_path / "model"))
    batches = [[micro_batch(sequences[:4], pairs=True)], [micro_batch(sequences[4:], pairs=True)]]
    jobs = {
        f"{precision}_{offload}": Job(
            {
                "policy": {
                    "model": model,
                    "data_parallel": 2,
                    "precision": precision,
                    "optimizer_offload": offload,
                    "step_timeout_s": 60.0,
                },
                "optimizer": {"lr": 0.01, "adam_eps": 1e-3, "warmup_steps": 3},
                "schedule": {"sync_interval": 8, "reference_sync": 2, "save_every": 4},
            },
            batches,
            num_steps=0,
        )
        for precision in PRECISIONS
        for offload in (False, True)
    }
    run_jobs(tmp_path, jobs, program=("-m", "tests.distributed.overlap_job"))
    for precision in PRECISIONS:
        kept, moved = (tmp_path / f"{precision}_{offload}" for offload in (False, True))
        for rank in range(2):
            expected = load_file(kept / f"read-{rank}.safetensors")
            found = load_file(moved / f"read-{rank}.safetensors")
            assert expected.keys() == found.keys()
            assert all(torch.equal(found[key], tensor) for key, tensor in expected.items())
            assert not torch.equal(expected["restored.0"], expected["sent.0"])
        for step in range(1, 8):
            assert read_metrics(moved, step) == read_metrics(kept, step)
