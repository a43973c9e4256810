"""Short runs of the real thing through the command line: megatron ranks, vLLM, math-verify and Ray."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.e2e.timelines import check_timeline

ROOT = Path(__file__).resolve().parents[2]
QUICKSTART = ROOT / "configs" / "quickstart.yaml"
SHORT = ["schedule.num_steps=4", "batch.prompts_per_step=8", "evaluation.num_prompts=8", "evaluation.n=2"]

pytestmark = pytest.mark.slow

# What containers, module files and launchers set, and no role on the CPU may follow.
LAUNCHER = {"OMP_NUM_THREADS": "4", "MKL_NUM_THREADS": "4", "OMP_PROC_BIND": "true"}


def command(*overrides):
    rlstack = Path(sys.executable).with_name("rlstack")
    return [rlstack, "train", QUICKSTART, *SHORT, *overrides]


def run(cwd, *overrides, run_dir=None):
    """Run to the end; the run's folder."""
    run_dir = run_dir or cwd / "runs"
    done = subprocess.run(
        command(*overrides, f"run.dir={run_dir}", "run.name=test"),
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=600,
        env=os.environ | LAUNCHER,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return run_dir / "test"


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def check(folder, *, versions, syncs, num_ranks=2):
    """What every finished run must have left behind."""
    summary = json.loads((folder / "summary.json").read_text())
    steps = rows(folder / "metrics.jsonl")
    assert summary["status"] == "completed"
    assert summary["steps"] == len(steps) == len(versions)
    assert [row["step"] for row in steps] == list(range(1, len(versions) + 1))
    assert [row["step"] - 1 - row["version_age"] for row in steps] == versions
    assert summary["syncs"] == syncs == sum("sync/verified" in row for row in steps)
    assert all(row["sync/verified"] for row in steps if "sync/verified" in row)
    mismatch = [row["mismatch/logprob_abs_max"] for row in steps if "mismatch/logprob_abs_max" in row]
    assert mismatch
    assert max(mismatch) < 1e-3
    sampled = rows(folder / "rollouts.jsonl")
    assert len(sampled) == 8 * 8 * len(versions)
    assert {(row["step"] - 1, row["version"]) for row in sampled} == set(enumerate(versions))
    assert {row["outcome"] for row in sampled} == {"ok"}
    check_timeline(folder, num_ranks=num_ranks)
    return steps


def exported_weights(folder):
    from transformers import AutoModelForCausalLM

    return dict(AutoModelForCausalLM.from_pretrained(folder).float().named_parameters())


def test_semi_online_dpo_from_the_repository_root(tmp_path):
    """Two pipeline stages of two chunks; kernels/ in the working directory must not shadow anything."""
    folder = run(ROOT, "schedule.sync_interval=2", "policy.virtual_pipeline=2", run_dir=tmp_path / "runs")
    steps = check(folder, versions=[0, 0, 2, 2], syncs=2)
    assert all("mismatch/logprob_abs_max" in row for row in steps)  # the reference holds each version
    assert all(row["wait/pipeline_bubble"] > 0 for row in steps)
    throughput = json.loads((folder / "summary.json").read_text())["throughput"]
    measured = ("train_tflops_per_rank", "generated_tokens_per_s_per_rank", "bubble_share")
    assert all(throughput[name] > 0 for name in measured)
    assert throughput["mfu"] is None  # of processes whose peak is not known
    before, after = exported_weights(ROOT / "configs/tiny/seed"), exported_weights(folder / "model")
    assert before.keys() == after.keys()
    assert any(not before[name].equal(after[name]) for name in before)


@pytest.mark.thorough
def test_offline_dpo(tmp_path):
    check(run(tmp_path, "schedule.sync_interval=null"), versions=[0, 0, 0, 0], syncs=0)


@pytest.mark.thorough
def test_online_dpo_of_ranks_that_share_sequences(tmp_path):
    overrides = ["policy.context_parallel=2", "policy.pipeline_layers=[1,3]", "rollout.tensor_parallel=2"]
    check(run(tmp_path, "schedule.sync_interval=1", *overrides), versions=[0, 1, 2, 3], syncs=4, num_ranks=4)


def test_online_dpo_through_four_ranks_into_two_engine_ranks(tmp_path):
    overrides = ["policy.tensor_parallel=2", "policy.pipeline_parallel=2", "rollout.tensor_parallel=2"]
    check(run(tmp_path, "schedule.sync_interval=1", *overrides), versions=[0, 1, 2, 3], syncs=4, num_ranks=4)


@pytest.mark.thorough
def test_online_grpo_with_a_kl_term(tmp_path):
    overrides = ["objective.name=grpo", "objective.kl_scale=0.001", "schedule.reference_sync=never"]
    steps = check(run(tmp_path, "schedule.sync_interval=1", *overrides), versions=[0, 1, 2, 3], syncs=4)
    assert all(row["grpo/kl"] >= 0 for row in steps)


def wait_for_first_step(process, folder):
    """All processes of the run, once it has logged a step."""
    metrics = folder / "metrics.jsonl"
    while process.poll() is None and not (metrics.exists() and metrics.read_text()):
        time.sleep(0.5)
    return psutil.Process(process.pid).children(recursive=True)


def log_of(process):
    """The name of the file that the process writes its output to."""
    try:
        return Path(f"/proc/{process.pid}/fd/1").resolve().name
    except OSError:
        return None


def alive(processes):
    return [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.thorough
def test_ctrl_c_ends_every_process_and_says_so(tmp_path):
    overrides = ["schedule.num_steps=1000", f"run.dir={tmp_path}", "run.name=test"]
    process = subprocess.Popen(command(*overrides), cwd=tmp_path, start_new_session=True)
    try:
        started = wait_for_first_step(process, tmp_path / "test")
        assert len(started) > 3
        os.killpg(process.pid, signal.SIGINT)  # what a terminal does
        assert process.wait(timeout=60) == 130
    finally:
        process.kill()
    assert not alive(started)
    assert json.loads((tmp_path / "test" / "summary.json").read_text())["status"] == "interrupted"


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("death", "says"),
    [(signal.SIGKILL, "died"), (signal.SIGSTOP, "within")],
    ids=["killed", "stalled"],
)
def test_a_lost_policy_rank_ends_the_run_with_its_name(tmp_path, death, says):
    """Whatever the others are doing at that moment: training, or in the middle of a sync."""
    limits = ["transfer.timeout_s=10", "policy.step_timeout_s=10", "recovery.max_restarts=0"]
    regime = ["schedule.num_steps=1000", "schedule.sync_interval=1", "policy.tensor_parallel=2"]
    process = subprocess.Popen(
        command(*regime, *limits, f"run.dir={tmp_path}", "run.name=test"),
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        started = wait_for_first_step(process, tmp_path / "test")
        (rank,) = [child for child in started if log_of(child) == "policy-1.log"]
        rank.send_signal(death)
        _, errors = process.communicate(timeout=90)
    finally:
        process.kill()
    assert process.returncode == 1
    assert "policy rank" in errors and says in errors
    assert not alive(started)
    assert json.loads((tmp_path / "test" / "summary.json").read_text())["status"] == "failed"
