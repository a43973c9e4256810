"""Triton's kernels on machines without a GPU; with one, all tests here are tests of it."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import torch
import triton  # noqa: F401  # as it is: only the kernels of this project are for the interpreter


@pytest.hookimpl(tryfirst=True)  # before those that are not asked for are left out
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        for item in items:
            if item.path.is_relative_to(Path(__file__).parent):
                item.add_marker(pytest.mark.gpu)


@pytest.fixture(scope="session", autouse=True)
def triton_device() -> str:
    """Where implementation="triton" runs: "cuda", or "cpu" in Triton's interpreter.

    Whether a kernel is interpreted is decided when its module is imported. The variable is not left set,
    because processes that a test starts would inherit it.
    """
    if torch.cuda.is_available():
        return "cuda"
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("TRITON_INTERPRET", "1")
        modules = [
            importlib.import_module(f"rlstack_kernels.triton_{name}") for name in ("kernels", "blocks")
        ]
        for module in modules:
            importlib.reload(module)  # another test may have imported them for the GPU
    return "cpu"
