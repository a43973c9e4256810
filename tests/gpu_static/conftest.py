"""Fixtures of the tests of the packages for GPUs, which need the packages, and no GPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.gpu_static.environment import ENGINE


@pytest.fixture(autouse=True, scope="session")
def packages_for_gpus() -> None:
    """Leave the tests out where torch is built for the CPU."""
    if torch.version.cuda is None:
        pytest.skip("torch's build for GPUs is not installed: make test-gpu-static")


@pytest.fixture(scope="session")
def engine() -> Path:
    """The folder that holds Transformer Engine's Python."""
    assert (ENGINE / "transformer_engine").is_dir(), f"{ENGINE} has no Transformer Engine"
    return ENGINE
