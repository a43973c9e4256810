"""Short runs of the quickstart in BF16: policy and engine on one GPU, or on one each, joined by NCCL."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from rlstack.config.machine import gpu_names

pytestmark = pytest.mark.gpu

ROOT = Path(__file__).parents[2]
SETTINGS = [
    "run.name=test",
    "schedule.num_steps=4",
    "schedule.sync_interval=2",
    "batch.prompts_per_step=8",
    "evaluation.num_prompts=8",
    "evaluation.n=2",
    "policy.pipeline_parallel=1",
    "policy.precision=bf16",
]
LAYOUTS = {
    "colocated": ["cluster.placement=colocated", "rollout.overlap=false", "rollout.gpu_memory_fraction=0.3"],
    "split": ["cluster.placement=split", "transfer.channel=network"],
    "two_ranks": ["cluster.placement=split", "policy.tensor_parallel=2", "policy.sequence_parallel=true"],
}
NUM_GPUS = {"colocated": 1, "split": 2, "two_ranks": 3}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_run_trains_syncs_and_ends(layout: str, tmp_path: Path) -> None:
    if len(gpu_names()) < NUM_GPUS[layout]:
        pytest.skip(f"needs {NUM_GPUS[layout]} GPUs")
    rlstack = Path(sys.executable).with_name("rlstack")
    config = ROOT / "configs" / "quickstart.yaml"
    done = subprocess.run(
        [rlstack, "train", config, *SETTINGS, *LAYOUTS[layout], f"run.dir={tmp_path}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    run = tmp_path / "test"
    steps = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [step["step"] for step in steps] == [1, 2, 3, 4]
    assert [step["step"] for step in steps if step.get("sync/verified")] == [2, 4]
    # Of engine and trainer in BF16, each with sums in an order of its own.
    assert max(step["mismatch/logprob_abs_mean"] for step in steps) < 0.05
    assert all(step["grad_norm"] > 0 for step in steps)
    summary = json.loads((run / "summary.json").read_text())
    assert summary["status"] == "completed"
    assert summary["hardware"]["gpus"]
    assert list((run / "model").glob("*.safetensors"))
