"""What precisions depend on of a machine: its GPUs, CUDA, Transformer Engine, the processor.

Imports none of them: it is asked before anything slow starts.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pynvml

Version = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Arithmetic:
    """None for what the machine does not have."""

    compute_capability: Version | None = None  # of its first GPU, which the others are taken to be like
    cuda: Version | None = None  # that torch was built for
    transformer_engine: Version | None = None
    has_amx: bool = False  # the processor says so
    has_triton: bool = True  # whether its package is installed
    has_liger: bool = True  # likewise
    has_cute: bool = True  # nvidia-cutlass-dsl, which Liger's kernels for Hopper are written in

    @classmethod
    def detect(cls, *, has_gpus: bool) -> Arithmetic:
        """Of the machine that this process runs on; has_gpus: whether this process may use some."""
        return cls(
            compute_capability=_compute_capability() if has_gpus else None,
            cuda=_cuda(),
            transformer_engine=_transformer_engine(),
            has_amx=_has_amx(Path("/proc/cpuinfo")),
            has_triton=importlib.util.find_spec("triton") is not None,
            has_liger=importlib.util.find_spec("liger_kernel") is not None,
            has_cute=importlib.util.find_spec("cutlass") is not None,
        )


def parse_version(text: str) -> Version | None:
    """The first two numbers of a version; None where there are none."""
    numbers = text.split(".")[:2]
    if len(numbers) < 2 or not all(number.isdecimal() for number in numbers):
        return None
    return int(numbers[0]), int(numbers[1])


def show_version(found: Version | None) -> str:
    """For messages: "9.0", "none"."""
    return "none" if found is None else f"{found[0]}.{found[1]}"


def _compute_capability() -> Version | None:
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    try:
        first = pynvml.nvmlDeviceGetHandleByIndex(0)
        major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(first)
    except pynvml.NVMLError:
        return None
    finally:
        pynvml.nvmlShutdown()
    return int(major), int(minor)


def _cuda() -> Version | None:
    """From the file in which torch keeps it: importing torch takes seconds."""
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None:
        return None
    spec = importlib.util.spec_from_file_location("torch_version", Path(found.origin).with_name("version.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return parse_version(module.cuda or "")


def _transformer_engine() -> Version | None:
    try:
        return parse_version(version("transformer_engine"))
    except PackageNotFoundError:
        return None


def _has_amx(cpuinfo: Path) -> bool:
    try:
        return "amx_tile" in cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
