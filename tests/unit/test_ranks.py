"""The start of the ranks of tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests import ranks

PROGRAM = "import os, sys\nfrom pathlib import Path\nPath(sys.argv[1]).write_text(str(os.getppid()))\n"


def test_no_rank_is_a_fork_of_what_has_counted_gpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(ranks, "gpu_names", lambda: ["NVIDIA H200"])
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    ranks.run_ranks([[program, tmp_path / "parent"]], timeout_s=60)
    assert (tmp_path / "parent").read_text() == str(os.getpid())
