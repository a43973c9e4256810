"""However examples are packed, a step is the same: each one alone, or all of them in one micro-batch."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from rlstack.config.schema import ObjectiveName
from rlstack.data.packing import pack
from rlstack.data.records import MicroBatch
from tests.distributed.policy_ranks import FAMILIES, LAYOUTS, Job, read_metrics, run_jobs, seed_model
from tests.distributed.test_objectives import OPTIMIZER, examples_for, given_groups

OBJECTIVES = {
    "dpo": {"name": "dpo", "beta": 0.5, "nll_scale": 0.4},
    "group_dpo": {"name": "group_dpo", "beta": 0.5, "entropy_scale": 0.2},
    "grpo": {"name": "grpo", "kl_scale": 0.3, "tis_cap": 1.3},
}
NUM_STEPS = 2  # at the second one the reference differs from the policy
ALONE, TOGETHER = 1, 1_000  # tokens of a micro-batch
ODD = ("dpo", "grpo")  # their examples leave one place to a filler, of one token, where ranks have one each


def packed(name: str, *, data_parallel: int, micro_batch_tokens: int) -> list[list[MicroBatch]]:
    """Micro-batches that are as many as the examples, or one for each data-parallel rank."""
    examples = examples_for(ObjectiveName(name), given_groups())
    batches = pack(
        examples,
        data_parallel=data_parallel,
        micro_batch_tokens=micro_batch_tokens,
        version=0,
        cost=lambda num_tokens: num_tokens + num_tokens**2 / 10,
    )
    alone = -(-len(examples) // data_parallel)
    assert len(batches[0]) == (alone if micro_batch_tokens == ALONE else 1)
    return batches


def job(model: Path, objective: str, layout: str, micro_batch_tokens: int) -> Job:
    return Job(
        {
            "policy": {**LAYOUTS[layout], "model": str(model), "step_timeout_s": 60.0},
            "objective": OBJECTIVES[objective],
            "optimizer": OPTIMIZER | {"clip_grad": 0.05},  # so that a wrong norm shows in the weights too
        },
        packed(
            objective,
            data_parallel=LAYOUTS[layout].get("data_parallel", 1),
            micro_batch_tokens=micro_batch_tokens,
        ),
        num_steps=NUM_STEPS,
    )


@pytest.mark.slow
def test_a_step_does_not_depend_on_the_packing(tmp_path: Path) -> None:
    model = seed_model(FAMILIES["llama"], tmp_path / "model")
    cases = {
        (objective, layout, tokens): tmp_path / f"{objective}-{layout}-{tokens}"
        for objective in OBJECTIVES
        for layout in ("pp2", "dp2")
        for tokens in (ALONE, TOGETHER)
    }
    run_jobs(tmp_path, {folder.name: job(model, *case) for case, folder in cases.items()})
    for (objective, layout, tokens), folder in cases.items():
        whole = cases[objective, "pp2", TOGETHER]
        for step in range(NUM_STEPS):
            expected = read_metrics(whole, step)
            assert expected["grad_norm"] > 0.05
            assert read_metrics(folder, step) == pytest.approx(expected, rel=1e-4, abs=2e-5)
            padding = json.loads((folder / f"metrics-{step}.json").read_text())["tokens/padding"]
            assert padding == int(layout == "dp2" and tokens == ALONE and objective in ODD)
        weights, found = (load_file(at / "exported" / "model.safetensors") for at in (whole, folder))
        torch.testing.assert_close(found, weights, atol=2e-5, rtol=1e-4)
        before = load_file(model / "model.safetensors")
        assert max((weights[key] - before[key]).abs().max() for key in weights) > 100 * 2e-5
