"""What the GPUs that can be planned for have, from NVIDIA's data sheets."""

from __future__ import annotations

from dataclasses import dataclass

from rlstack.config.schema import Precision
from rlstack.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One accelerator of a node in which all are joined by NVLink; peak figures, without sparsity."""

    name: str
    memory_gb: float  # 10^9 bytes
    hbm_tb_per_s: float
    bf16_tflops: float
    fp8_tflops: float
    fp32_tflops: float  # without TF32, which torch leaves off
    nvlink_gb_per_s: float  # per direction
    network_gb_per_s: float  # between nodes, per GPU and direction
    source: str
    gpus_per_node: int = 8

    def tflops(self, precision: Precision) -> float:
        """Peak of products of matrices in `precision`."""
        peaks = {
            Precision.fp32: self.fp32_tflops,
            Precision.bf16: self.bf16_tflops,
            Precision.fp8: self.fp8_tflops,
        }
        return peaks[precision]


_HOPPER_NETWORK = "ConnectX-7 NDR InfiniBand, 400 Gb/s per GPU (DGX H100/H200 data sheet)"

GPUS = {
    gpu.name: gpu
    for gpu in (
        Gpu(
            name="h100",
            memory_gb=80,
            hbm_tb_per_s=3.35,
            bf16_tflops=989,
            fp8_tflops=1979,
            fp32_tflops=67,
            nvlink_gb_per_s=450,
            network_gb_per_s=50,
            source=f"NVIDIA H100 SXM data sheet (nvidia.com/h100); {_HOPPER_NETWORK}",
        ),
        Gpu(
            name="h200",
            memory_gb=141,
            hbm_tb_per_s=4.8,
            bf16_tflops=989,
            fp8_tflops=1979,
            fp32_tflops=67,
            nvlink_gb_per_s=450,
            network_gb_per_s=50,
            source=f"NVIDIA H200 SXM data sheet (nvidia.com/h200); {_HOPPER_NETWORK}",
        ),
        Gpu(
            name="b200",
            memory_gb=180,
            hbm_tb_per_s=8,
            bf16_tflops=2250,
            fp8_tflops=4500,
            fp32_tflops=75,
            nvlink_gb_per_s=900,
            network_gb_per_s=50,
            source="NVIDIA DGX and HGX B200 data sheets, an eighth of the system's; ConnectX-7, 400 Gb/s",
        ),
    )
}


def gpu_of(name: str) -> Gpu:
    """The GPU of that name. Raises ConfigError if it is not known."""
    if name.lower() not in GPUS:
        raise ConfigError(f"--gpu = {name}: {' | '.join(GPUS)} is accepted; choose the nearest")
    return GPUS[name.lower()]
