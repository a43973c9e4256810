"""A run with real processes that goes on from a checkpoint, held against one that was never interrupted."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from safetensors.numpy import load_file

from rlstack.telemetry.metrics import is_timing
from tests.e2e.timelines import check_timeline

QUICKSTART = Path(__file__).resolve().parents[2] / "configs" / "quickstart.yaml"
# A lag, so that rollouts of the version before the engines' wait to be trained on, and a reference that
# stays, so that the engines' version is nobody else's.
REGIME = ["schedule.sync_interval=3", "schedule.lag=1", "schedule.reference_sync=never"]
SHORT = ["schedule.num_steps=8", "batch.prompts_per_step=4", "evaluation.num_prompts=4", "evaluation.n=2"]
SAVES = ["schedule.save_every=2", "checkpoint.keep_last=9", "rollout.max_num_seqs=32"]

pytestmark = pytest.mark.slow


def command(folder: Path, *overrides: str) -> list[str | Path]:
    rlstack = Path(sys.executable).with_name("rlstack")
    place = [f"run.dir={folder.parent}", f"run.name={folder.name}"]
    return [rlstack, "train", QUICKSTART, *REGIME, *SHORT, *SAVES, *place, *overrides]


def run(folder: Path, *overrides: str) -> str:
    """Train in `folder` to the end; what was printed."""
    done = subprocess.run(command(folder, *overrides), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def rows(path: Path) -> list[dict[str, Any]]:
    return [
        {name: value for name, value in json.loads(line).items() if not is_timing(name)}
        for line in path.read_text().splitlines()
    ]


def left(folder: Path) -> dict[str, Any]:
    """All that a run has done, but for times."""
    return {
        "metrics": rows(folder / "metrics.jsonl"),
        "rollouts": rows(folder / "rollouts.jsonl"),
        "evaluations": json.loads((folder / "summary.json").read_text())["evaluations"],
        "weights": {name: weight.tobytes() for name, weight in weights(folder).items()},
    }


def weights(folder: Path) -> dict[str, np.ndarray]:
    """Of the trained model, however many files it is in."""
    files = (folder / "model").glob("*.safetensors")
    return {name: weight for file in files for name, weight in load_file(file).items()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing interrupts."""
    folder = tmp_path_factory.mktemp("resume") / "whole"
    run(folder)
    return folder


def broken_off(whole: Path, name: str, *, after: int) -> Path:
    """A folder as a run like `whole` leaves it that ends once the checkpoint of step `after` is written."""
    folder = whole.with_name(name)
    shutil.copytree(whole, folder)
    for unwritten in ("summary.json", "report.html", "timeline.json"):
        (folder / unwritten).unlink()
    shutil.rmtree(folder / "model")
    for checkpoint in (folder / "checkpoints").iterdir():
        if int(checkpoint.name.removeprefix("step-")) > after:
            shutil.rmtree(checkpoint)
    return folder


@pytest.mark.parametrize(
    ("after", "served"),
    [(4, 3), pytest.param(6, 6, marks=pytest.mark.thorough)],
    ids=["inside an interval", "at a sync"],
)
def test_a_run_that_goes_on_ends_as_one_that_was_not_interrupted(
    whole: Path, after: int, served: int
) -> None:
    folder = broken_off(whole, f"after-{after}", after=after)
    printed = run(folder, "--resume")
    assert f"goes on after step {after}, from step-{after:08d}; the engines get version {served}" in printed
    assert left(folder) == left(whole)
    record = check_timeline(folder, num_ranks=2)
    assert record.summary is not None
    assert record.summary["resumed"] == [after]


@pytest.mark.thorough
def test_a_run_that_is_killed_while_it_saves_goes_on_from_the_checkpoint_before(whole: Path) -> None:
    folder = whole.with_name("killed")
    draft = folder / "checkpoints" / ".step-00000004.part"
    process = subprocess.Popen(command(folder), stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        deadline = time.monotonic() + 120
        while not draft.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.001)
        started = [process, *psutil.Process(process.pid).children(recursive=True)]
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=10)
    finally:
        process.kill()
    _, alive = psutil.wait_procs(started[1:], timeout=30)
    for other in alive:
        other.kill()
    assert not alive
    assert draft.exists()

    assert "goes on after step 2, from step-00000002" in run(folder, "--resume")
    assert left(folder) == left(whole)
    assert not draft.exists()


def logged(folder: Path) -> int:
    """How many steps the run in `folder` has logged so far."""
    path = folder / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def heed_interrupts() -> None:
    """What a shell starts in the background ignores them, and so does all that it starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_ctrl_c_saves_the_step_and_the_run_goes_on_from_there(whole: Path) -> None:
    folder = whole.with_name("interrupted")
    process = subprocess.Popen(
        command(folder, "schedule.save_every=100"),
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=heed_interrupts,
    )
    started: list[psutil.Process] = []
    try:
        while logged(folder) < 3 and process.poll() is None:
            time.sleep(0.01)
        started = psutil.Process(process.pid).children(recursive=True)
        os.killpg(process.pid, signal.SIGINT)  # what a terminal does: to every process of the group
        printed, _ = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130, printed[-3000:]
    saved = logged(folder)
    assert f"saved up to step {saved}; to go on: rlstack train" in printed
    assert [path.name for path in (folder / "checkpoints").iterdir()] == [f"step-{saved:08d}"]
    assert not psutil.wait_procs(started, timeout=10)[1]

    assert f"goes on after step {saved}, from step-{saved:08d}" in run(folder, "--resume")
    assert left(folder) == left(whole)


@pytest.mark.thorough
def test_sigterm_saves_as_ctrl_c_does(whole: Path) -> None:
    folder = whole.with_name("terminated")
    process = subprocess.Popen(command(folder, "schedule.save_every=100"), stdout=subprocess.PIPE, text=True)
    try:
        while logged(folder) < 2 and process.poll() is None:
            time.sleep(0.01)
        process.terminate()  # as a batch system, which tells the driver alone
        printed, _ = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130, printed[-3000:]
    assert f"saved up to step {logged(folder)}; to go on: rlstack train" in printed


@pytest.mark.thorough
def test_a_full_disk_ends_the_run_in_a_sentence_and_costs_no_checkpoint(whole: Path, tmp_path: Path) -> None:
    """A tmpfs with room for two checkpoints, and no third."""
    disk = tmp_path / "disk"
    disk.mkdir()
    size = sum(path.stat().st_size for path in (whole / "checkpoints" / "step-00000002").rglob("*"))
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={int(2.5 * size) + 400_000}", "tmpfs", disk],
        capture_output=True,
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.decode().strip()}")
    try:
        overrides = ["schedule.save_every=1", "recovery.max_restarts=3"]
        done = subprocess.run(
            command(disk / "full", *overrides), capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 1, done.stdout[-3000:]
        assert done.stderr.startswith("error: ") and "No space left on device" in done.stderr
        assert "Traceback" not in done.stderr
        assert "free some space, and go on as above" in done.stderr
        assert "saved up to step 2; to go on: rlstack train" in done.stdout
        assert "was replaced" not in done.stdout
        summary = disk / "full" / "summary.json"  # for which there may be no room either
        if summary.exists():
            assert json.loads(summary.read_text())["status"] == "failed"
        else:
            assert "summary.json could not be written: No space left on device" in done.stdout
        subprocess.run(["mount", "-o", f"remount,size={20 * size}", disk], check=True)
        assert "goes on after step 2, from step-00000002" in run(disk / "full", *overrides, "--resume")
        assert left(disk / "full") == left(whole)
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


@pytest.mark.thorough
def test_another_layout_goes_on_alike_within_rounding(whole: Path) -> None:
    folder = broken_off(whole, "another-layout", after=6)
    run(folder, "--resume", "policy.pipeline_parallel=1", "policy.tensor_parallel=2")
    ours, theirs = left(folder), left(whole)
    assert ours["metrics"][:6] == theirs["metrics"][:6]
    for mine, other in zip(ours["metrics"], theirs["metrics"], strict=True):
        assert mine.keys() == other.keys()
        assert mine == pytest.approx(other, rel=1e-3, abs=1e-4)
    assert ours["rollouts"] == theirs["rollouts"]
    for name, weight in weights(whole).items():
        np.testing.assert_allclose(weights(folder)[name], weight, rtol=1e-4, atol=1e-6)
