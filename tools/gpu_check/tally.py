"""A plugin of pytest that counts outcomes as they come, so that a part stopped at its limit has them too."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

MAX_NAMES = 20
_counts: Counter[str] = Counter()
_failures: list[str] = []


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Count a test once: by its call, or by what kept it from being called."""
    if report.when == "call" or report.outcome != "passed":
        _counts[report.outcome] += 1
        if report.outcome == "failed":
            _failures.append(report.nodeid)
        _write()


def pytest_sessionfinish() -> None:
    _write()


def _write() -> None:
    import torch  # tests of it may not come to need it

    details: dict[str, Any] = {name: _counts[name] for name in ("passed", "failed", "skipped")}
    details |= {"failures": _failures[:MAX_NAMES], "cuda": torch.cuda.is_available()}
    if "PYTEST_XDIST_WORKER" not in os.environ:
        Path(os.environ["GPU_CHECK_DETAILS"]).write_text(json.dumps(details), encoding="utf-8")
