"""`rlstack tune` with real engines: two intervals, a handful of steps; then the same again, and Ctrl-C."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

QUICKSTART = Path(__file__).resolve().parents[2] / "configs" / "quickstart.yaml"
SMALL = ["batch.prompts_per_step=8", "evaluation.num_prompts=8", "evaluation.n=2"]

pytestmark = [pytest.mark.slow, pytest.mark.thorough]


def command(out, *options):
    rlstack = Path(sys.executable).with_name("rlstack")
    return [rlstack, "tune", QUICKSTART, *SMALL, "--out", out, "--no-calibrate", "--seeds", "1", *options]


def test_a_tuning_is_interrupted_goes_on_and_recommends(tmp_path):
    out = tmp_path / "tune"
    options = ["--intervals", "1,2", "--steps", "4"]
    process = subprocess.Popen(command(out, *options), cwd=tmp_path, start_new_session=True)
    try:
        wait_for(out / "trials" / "s2-seed0" / "metrics.jsonl", process)
        started = psutil.Process(process.pid).children(recursive=True)
        os.killpg(process.pid, signal.SIGINT)  # what a terminal does
        assert process.wait(timeout=90) == 130
    finally:
        process.kill()
    assert not [p for p in started if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
    before = (out / "trials" / "s1-seed0" / "summary.json").stat()

    done = subprocess.run(command(out, *options), cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "s = 1, seed 0" in done.stdout and "was finished before" in done.stdout
    assert (out / "trials" / "s1-seed0" / "summary.json").stat().st_mtime_ns == before.st_mtime_ns
    made = json.loads((out / "tune.json").read_text())
    assert made["recommended"] in (1, 2) and made["paste"] in done.stdout
    assert [(trial["interval"], trial["versions"]) for trial in made["trials"]] == [
        (1, [0, 1, 2, 3]),
        (2, [0, 0, 2, 2]),
    ]
    first, second = made["trials"]
    assert first["rewards"][0] == second["rewards"][0]  # the same prompts, seed and weights
    for trial in made["trials"]:
        assert sum(trial["part_s"].values()) == pytest.approx(trial["ends_s"][-1])
    assert (out / "report.html").stat().st_size > 100_000


def wait_for(path, process, limit_s=240):
    """Until the file has something in it."""
    end = time.monotonic() + limit_s
    while not (path.exists() and path.stat().st_size):
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.2)
