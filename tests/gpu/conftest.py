"""What the tests on a GPU share: they are left out where there is none."""

import pytest

from rlstack.config.machine import gpu_names
from tests.e2e.conftest import engine_pool

__all__ = ["engine_pool"]


@pytest.fixture(autouse=True, scope="session")
def gpu() -> None:
    if not gpu_names():
        pytest.skip("there is no NVIDIA GPU")
