"""Whole runs with the vocabularies of Llama 3.1 and Qwen3, each entry of them, within a machine's 24 GiB."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [pytest.mark.slow, pytest.mark.thorough]


@pytest.mark.parametrize(
    ("model", "vocab_size", "tied"),
    [("Llama-3.1, 4 layers", 128256, False), ("Qwen3, 4 layers", 151936, True)],
)
def test_a_run_of_tp2_pp2_with_an_engine_of_two_ranks(
    model: str, vocab_size: int, tied: bool, tmp_path: Path
) -> None:
    out = tmp_path / "rows.json"
    command = [sys.executable, ROOT / "benchmarks" / "large_vocabulary.py", "--out", out, "--models", model]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (row,) = json.loads(out.read_text())["rows"]
    assert (row["vocab_size"], row["tied"]) == (vocab_size, tied)
    assert row["peak_pss_gib"] < 24
    assert (row["steps"], row["syncs_verified"]) == (3, 3)
    assert row["trained_tokens"] > 0
    assert row["mismatch_logprob_abs_max"] < 1e-3
    # Three of Adam's steps of 1e-4 at most; a weight in another's place would be off by about 0.02.
    assert 0 < row["weight_change_abs_max"] < 4e-4
    assert row["exported_logprob_abs_max"] < 1e-4
