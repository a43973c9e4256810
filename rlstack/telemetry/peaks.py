"""What GPUs can do at most, from NVIDIA's data sheets: dense products of matrices, without sparsity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rlstack.config.schema import Precision


class Peak(NamedTuple):
    """TFLOP/s of one GPU; None where it has no such arithmetic."""

    bf16: float
    fp8: float | None
    fp32: float  # without TF32, which torch leaves off
    source: str

    def tflops(self, precision: Precision) -> float | None:
        """Of products of matrices in `precision`."""
        return {Precision.bf16: self.bf16, Precision.fp8: self.fp8, Precision.fp32: self.fp32}[precision]


H100_SXM = Peak(989, 1979, 67, "NVIDIA H100 data sheet, SXM (nvidia.com/h100)")
H200_SXM = Peak(989, 1979, 67, "NVIDIA H200 data sheet, SXM (nvidia.com/h200)")
B200 = Peak(2250, 4500, 75, "NVIDIA HGX B200 data sheet, an eighth of the system's")
_A100 = Peak(312, None, 19.5, "NVIDIA A100 data sheet (nvidia.com/a100)")

# By what NVML's name of a GPU begins with, after "NVIDIA "; the first that fits.
_PEAKS = (
    ("H100 PCIe", Peak(756, 1513, 51, "NVIDIA H100 data sheet, PCIe")),
    ("H100 NVL", Peak(835, 1671, 60, "NVIDIA H100 data sheet, NVL")),
    ("H100 80GB HBM3", H100_SXM),
    ("H200 NVL", Peak(835, 1671, 60, "NVIDIA H200 data sheet, NVL")),
    ("H200", H200_SXM),
    ("GH200", H100_SXM._replace(source="NVIDIA GH200 data sheet (nvidia.com/gh200)")),
    ("B200", B200),
    ("A100", _A100),
)


def peak_of(name: str) -> Peak | None:
    """Of the GPU that NVML calls `name`; None if it is not known."""
    model = name.removeprefix("NVIDIA ")
    return next((peak for start, peak in _PEAKS if model.startswith(start)), None)


def common_peak_tflops(names: Sequence[str], precision: Precision) -> float | None:
    """Of each of the GPUs of these names in `precision`; None if it is not known or they differ."""
    peaks = {peak.tflops(precision) if (peak := peak_of(name)) else None for name in names}
    return peaks.pop() if len(peaks) == 1 else None
