"""Exchanges beside the computation change no bit of what is trained, sent, saved or served."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import LlamaConfig, Qwen2Config

from tests.distributed.policy_ranks import SHAPE, Job, read_metrics, run_jobs, seed_model
from tests.distributed.test_policy import micro_batch, sequences

__all__ = ["sequences"]

PROGRAM = ("-m", "tests.distributed.overlap_job")
NUM_STEPS = 7  # of the program
LAYOUTS: dict[str, dict[str, Any]] = {
    "dp2": {"data_parallel": 2},
    "pp2_vp2_dp2": {"pipeline_parallel": 2, "virtual_pipeline": 2, "data_parallel": 2},
}
MODELS = {
    "dp2": LlamaConfig(**SHAPE),
    "pp2_vp2_dp2": Qwen2Config(**SHAPE | {"num_hidden_layers": 4}, tie_word_embeddings=True),
}
# A bucket ends where it has this many elements: the head, 133 rows padded, is alone in one.
OVERLAP = {"overlap_grad_reduce": True, "overlap_param_gather": True, "overlap_bucket_size": 8000}
OPTIMIZER = {"lr": 0.01, "weight_decay": 0.1, "adam_eps": 1e-3, "clip_grad": 0.0}
SCHEDULE = {"sync_interval": 8, "reference_sync": 2, "save_every": 4}


@pytest.fixture(scope="module")
def trained(sequences, tmp_path_factory) -> Path:
    """A folder for each layout, with and without overlap."""
    folder: Path = tmp_path_factory.mktemp("trained")
    for layout, policy in LAYOUTS.items():
        model = str(seed_model(MODELS[layout], folder / "models" / layout))
        first, second, filler = (
            micro_batch(chosen, pairs=True) for chosen in (sequences[:6], sequences[6:], [])
        )
        jobs = {
            name: Job(
                {
                    "policy": {**policy, **more, "model": model, "step_timeout_s": 60.0},
                    "objective": {"name": "dpo", "beta": 0.5},
                    "optimizer": OPTIMIZER,
                    "schedule": SCHEDULE,
                },
                [[first, filler], [filler, second]],
                num_steps=0,
            )
            for name, more in ((layout, {}), (f"{layout}_overlap", OVERLAP))
        }
        inside = folder / "ranks" / layout
        inside.mkdir(parents=True)
        run_jobs(inside, jobs, program=PROGRAM)
        for name in jobs:
            (inside / name).rename(folder / name)
    return folder


def exchanges(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob("exchanges-*.json"))]


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_weights_are_the_same_to_the_bit_for_whatever_reads_them_after_a_step(layout, trained) -> None:
    plain, overlapped = trained / layout, trained / f"{layout}_overlap"
    ranks = sorted(path.name for path in plain.glob("read-*.safetensors"))
    assert len(ranks) == (4 if "pp2" in layout else 2)
    for name in ranks:
        expected, found = load_file(plain / name), load_file(overlapped / name)
        assert expected.keys() == found.keys()
        for key, tensor in expected.items():
            assert torch.equal(found[key], tensor), (name, key)
        assert not torch.equal(expected["sent.0"], expected["put back.0"])
    exported = [load_file(folder / "exported" / "model.safetensors") for folder in (plain, overlapped)]
    torch.testing.assert_close(exported[1], exported[0], atol=0, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_loss_and_gradient_are_the_same(layout, trained) -> None:
    for step in range(1, NUM_STEPS + 1):
        expected = read_metrics(trained / layout, step)
        found = read_metrics(trained / f"{layout}_overlap", step)
        # The norm is added up in another order.
        assert found.pop("grad_norm") == pytest.approx(expected.pop("grad_norm"), rel=1e-6)
        assert found == expected


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradients_are_reduced_in_the_backward_pass_and_weights_gathered_after_the_step(
    layout, trained
) -> None:
    for rank, report in enumerate(exchanges(trained / f"{layout}_overlap")):
        is_first_stage = layout == "dp2" or rank < 2
        assert (report["buckets"] > 4) == is_first_stage  # megatron-core splits no other stage
        # In the first step megatron-core counts the gradients that are to come.
        num_buckets = report["buckets"]
        assert report["in_backward"] == [False] * num_buckets + [True] * num_buckets * (NUM_STEPS - 1)
        assert report["left_apart"] == [True] * num_buckets * NUM_STEPS
    for report in exchanges(trained / layout):
        assert not any(report["in_backward"])
