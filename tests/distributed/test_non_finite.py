"""A loss or gradient that is not finite on one rank: all ranks skip the step, and what follows is as if it
had never been."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rlstack.data.packing import pack
from rlstack.data.records import MicroBatch, Prompt, Rollout, TrainingExample
from tests.distributed.policy_ranks import FAMILIES, LAYOUTS, SHAPE, Job, run_jobs, seed_model, stages

PROGRAM = ("-m", "tests.distributed.non_finite_job")
OPTIMIZER = {"lr": 0.01, "warmup_steps": 3, "adam_eps": 1e-3, "clip_grad": 0.5}
# The largest numbers are finite, and their squares' sum is not.
VALUES = {"nan": math.nan, "inf": math.inf, "overflow": 3e38}


def batches(data_parallel: int) -> list[list[MicroBatch]]:
    random = np.random.default_rng(0)
    examples = [
        TrainingExample.of_rollout(
            prompt=Prompt(task="a", row=i, problem="", token_ids=(i + 1, 7, 9)),
            rollout=Rollout(
                token_ids=tuple(random.integers(0, SHAPE["vocab_size"], 6).tolist()),
                generator_logprobs=tuple(random.normal(-5, 1, 6).tolist()),
                text="",
                finished=True,
                version=0,
            ),
            advantage=float(random.normal()),
        )
        for i in range(4)
    ]
    return pack(examples, data_parallel=data_parallel, micro_batch_tokens=20, version=0)


def spoils(layout: str) -> list[dict[str, Any]]:
    """What is spoilt, on either rank; the loss is the last stage's."""
    found = [
        {"rank": rank, "what": what, "value": value}
        for rank, what, value in [(0, "weight", "nan"), (1, "weight", "inf"), (1, "norm", "nan")]
    ]
    found += [{"rank": 0, "what": "weight", "value": "overflow"}, {"rank": 1, "what": "loss", "value": "inf"}]
    return found if layout != "pp2" else [*found, {"rank": 0, "what": "norm", "value": "nan"}]


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["tp2", "pp2", "dp2"])
def test_a_step_that_is_not_finite_on_one_rank_is_skipped_on_all_and_leaves_nothing(layout, tmp_path) -> None:
    policy = {**LAYOUTS[layout], "model": str(seed_model(FAMILIES["llama"], tmp_path / "model"))}
    config = {
        "policy": {**policy, "step_timeout_s": 30.0},
        "objective": {"name": "grpo"},
        "optimizer": OPTIMIZER,
    }
    share = batches(policy.get("data_parallel", 1))
    bad = {
        f"{spoil['what']}-{spoil['value']}-{spoil['rank']}": spoil | {"value": VALUES[spoil["value"]]}
        for spoil in spoils(layout)
    }
    jobs = {name: Job(config | {"spoil": spoil}, share, num_steps=3) for name, spoil in bad.items()}
    run_jobs(
        tmp_path, {"undisturbed": Job(config | {"spoil": {}}, share, num_steps=3)} | jobs, program=PROGRAM
    )

    expected = read(tmp_path / "undisturbed")
    weights = stages(tmp_path / "undisturbed", "weights")
    assert [row["guard/skipped"] for row in expected] == [0, 0, 0]
    for name in jobs:
        rows = read(tmp_path / name)
        assert [row["guard/skipped"] for row in rows] == [0, 1, 0, 0], name
        # The norm does not show what the decision must see: the loss, and a copy of what it counts only once.
        unseen = name.startswith("loss") or (layout, name) == ("tp2", "norm-nan-1")
        assert math.isfinite(rows[1]["grad_norm"]) == unseen, name
        assert rows[1]["lr"] == rows[0]["lr"]
        for row, good in zip([rows[0], *rows[2:]], expected, strict=True):
            assert {key: row[key] for key in ("loss/total", "grad_norm", "lr")} == {
                key: good[key] for key in ("loss/total", "grad_norm", "lr")
            }
        found = stages(tmp_path / name, "weights")
        assert all(torch.equal(found[key], weights[key]) for key in weights), name


def read(folder: Path) -> list[dict[str, float]]:
    return json.loads((folder / "metrics.json").read_text())
