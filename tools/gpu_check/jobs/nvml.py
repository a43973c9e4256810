"""Sample every GPU with the telemetry's own sampler while it multiplies matrices.

Fails where a GPU does not give its power, use, memory or temperature.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from details import leave

from rlstack.telemetry import nvml

BUSY_S = 3.0
SIZE = 8192


@dataclass(frozen=True, slots=True)
class Gpu:
    index: int
    flops_per_s: float

    @classmethod
    def keep_busy(cls, index: int) -> Gpu:
        """The rate of BF16 products [SIZE, SIZE] for BUSY_S."""
        left, right = (torch.randn(SIZE, SIZE, device=f"cuda:{index}").bfloat16() for _ in range(2))
        left @ right
        torch.cuda.synchronize(index)
        started, count = time.perf_counter(), 0
        while time.perf_counter() - started < BUSY_S:
            for _ in range(10):
                left @ right
            count += 10
            torch.cuda.synchronize(index)
        return cls(index, 2 * SIZE**3 * count / (time.perf_counter() - started))


def main() -> None:
    rates = []
    sampler = nvml.GpuSampler("check", [str(index) for index in range(torch.cuda.device_count())])
    sampler.start()
    try:
        for index in range(torch.cuda.device_count()):
            rates.append(Gpu.keep_busy(index))
    finally:
        sampler.stop()
    samples = nvml.take()
    per_gpu = {rate.index: [s for s in samples if s.gpu == str(rate.index)] for rate in rates}
    leave(
        cuda=torch.cuda.is_available(),
        gpus=[
            {
                "tflops_bf16": round(rate.flops_per_s / 1e12, 1),
                "samples": len(per_gpu[rate.index]),
                **{
                    name: max((getattr(s, name) or 0.0 for s in per_gpu[rate.index]), default=None)
                    for name in ("power_w", "use", "memory_gib", "temperature_c")
                },
            }
            for rate in rates
        ],
    )
    silent = [
        f"GPU {index}: no {name}"
        for index, taken in per_gpu.items()
        for name in ("power_w", "use", "memory_gib", "temperature_c")
        if not any(getattr(sample, name) for sample in taken)
    ]
    if silent:
        raise SystemExit("; ".join(silent))


if __name__ == "__main__":
    main()
