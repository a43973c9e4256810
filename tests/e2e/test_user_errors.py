"""A bug in the user's own loss ends a real run at once, with its file and line first."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

QUICKSTART = Path(__file__).resolve().parents[2] / "configs" / "quickstart.yaml"
LOSS = """class Buggy:
    needs_reference = needs_entropy_gradient = False

    def __call__(self, inputs):
        return inputs.no_such_field
"""
SETTINGS = [
    "objective.loss=my_losses:Buggy",
    "schedule.num_steps=2",
    "batch.prompts_per_step=4",
    "evaluation.tasks=[]",
    "run.dir=runs",
]

pytestmark = pytest.mark.slow


def test_a_loss_that_raises_ends_the_run_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "my_losses.py").write_text(LOSS)
    rlstack = Path(sys.executable).with_name("rlstack")
    done = subprocess.run(
        [rlstack, "train", QUICKSTART, *SETTINGS], cwd=tmp_path, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 1, done.stdout[-3000:] + done.stderr[-3000:]
    place = f"{tmp_path}/my_losses.py:5"
    first = done.stderr.splitlines()[0]
    assert first == f"error: {place}: AttributeError: 'LossInputs' object has no attribute 'no_such_field'"
    shown = done.stdout + done.stderr
    for text in ("Traceback", "SIGSEGV", "raylet", "(pid=", "\x1b["):
        assert text not in shown
    folder = tmp_path / "runs" / "quickstart"
    assert not (folder / "restarts.jsonl").exists()
    error = json.loads((folder / "summary.json").read_text())["error"]
    assert (error["file"], error["line"]) == (f"{tmp_path}/my_losses.py", 5)
    assert "no_such_field" in (folder / error["log"]).read_text()
    assert "inputs.no_such_field" in "".join(log.read_text() for log in folder.glob("logs/policy-*.log"))
    assert place in (folder / "report.html").read_text(encoding="utf-8")
