"""Ctrl-C while roles start up: what they were starting goes with them. No models."""

from __future__ import annotations

import os
import time
from functools import partial
from pathlib import Path

import pytest

from rlstack.config.schema import Cluster as ClusterSettings
from rlstack.config.schema import RunConfig
from rlstack.orchestration.cluster import Cluster
from rlstack.orchestration.roles import Role
from tests.forking import memory_of, processes_of, remove_all_of, start_forking

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 60.0


def build_without_end(word: str) -> None:
    """As an engine whose processes are starting."""
    start_forking(word).wait()


def test_nothing_is_left_of_a_role_that_was_starting_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # roles import this file by name
    settings = RunConfig(cluster=ClusterSettings(object_store_mib=100))
    word = f"of-a-role-{os.getpid()}"
    try:
        with pytest.raises(KeyboardInterrupt), Cluster(settings, tmp_path):
            role = Role("starting", log=tmp_path / "starting.log", build=partial(build_without_end, word))
            deadline = time.monotonic() + TIMEOUT_S
            while len(memory_of(word)) < 10:
                assert time.monotonic() < deadline, "the role has started nothing"
                time.sleep(0.01)
            assert role.processes() is None  # for it is still being built
            raise KeyboardInterrupt
        assert processes_of(word) == []
        assert memory_of(word) == []
    finally:
        remove_all_of(word)
