"""Fixtures of the tests on hosts of namespaces."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.invariants import Left
from tests.faults.results import undisturbed_run
from tests.multihost.cluster import QUICKSTART, SHORT
from tests.multihost.spaces import missing
from tests.run_files import Results, results_in


@pytest.fixture(scope="session", autouse=True)
def rights() -> None:
    """Leave the tests out where hosts cannot be made."""
    if (reason := missing()) is not None:
        pytest.skip(reason)


@pytest.fixture(scope="session")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """The results of the short quickstart on one machine."""
    folder = tmp_path_factory.mktemp("alone")
    rlstack = Path(sys.executable).with_name("rlstack")
    words = [str(rlstack), "train", str(QUICKSTART), *SHORT, f"run.dir={folder}", "run.name=run"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return results_in(folder / "run")


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Left:
    """The run of tests/faults on one machine, to which nothing happens."""
    return undisturbed_run(tmp_path_factory.mktemp("undisturbed"))
