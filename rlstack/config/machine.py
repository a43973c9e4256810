"""What this machine has, as far as the layout of a run depends on it; asks NVML, not CUDA."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

import pynvml

from rlstack.config.arithmetic import Arithmetic


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    num_cores: int  # that this process may use
    num_gpus: int
    arithmetic: Arithmetic = field(default_factory=Arithmetic)

    @classmethod
    def detect(cls) -> Machine:
        """The machine that this process runs on."""
        num_gpus = len(gpu_names())
        return cls(
            num_cores=len(os.sched_getaffinity(0)),
            num_gpus=num_gpus,
            arithmetic=Arithmetic.detect(has_gpus=num_gpus > 0),
        )


def gpu_names() -> list[str]:
    """The NVIDIA GPUs that CUDA_VISIBLE_DEVICES leaves to this process; empty without a driver."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        names = [pynvml.nvmlDeviceGetName(handle) for handle in handles]
    finally:
        pynvml.nvmlShutdown()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return names if visible is None else names[: len([entry for entry in visible.split(",") if entry])]
