"""What the GPUs that can be planned for have, from NVIDIA's data sheets."""

from __future__ import annotations

from dataclasses import dataclass

from rlstack.config.schema import Precision
from rlstack.errors import ConfigError
from rlstack.telemetry.peaks import B200, H100_SXM, H200_SXM, Peak


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One accelerator of a node in which all are joined by NVLink."""

    name: str
    memory_gb: float  # 10^9 bytes
    hbm_tb_per_s: float
    peak: Peak
    nvlink_gb_per_s: float  # per direction
    network_gb_per_s: float  # between nodes, per GPU and direction
    source: str
    gpus_per_node: int = 8

    def tflops(self, precision: Precision) -> float:
        """Peak of products of matrices in `precision`."""
        tflops = self.peak.tflops(precision)
        assert tflops is not None, "all that can be planned for have FP8"
        return tflops


_HOPPER_NETWORK = "ConnectX-7 NDR InfiniBand, 400 Gb/s per GPU (DGX H100/H200 data sheet)"

GPUS = {
    gpu.name: gpu
    for gpu in (
        Gpu(
            name="h100",
            memory_gb=80,
            hbm_tb_per_s=3.35,
            peak=H100_SXM,
            nvlink_gb_per_s=450,
            network_gb_per_s=50,
            source=f"NVIDIA H100 SXM data sheet (nvidia.com/h100); {_HOPPER_NETWORK}",
        ),
        Gpu(
            name="h200",
            memory_gb=141,
            hbm_tb_per_s=4.8,
            peak=H200_SXM,
            nvlink_gb_per_s=450,
            network_gb_per_s=50,
            source=f"NVIDIA H200 SXM data sheet (nvidia.com/h200); {_HOPPER_NETWORK}",
        ),
        Gpu(
            name="b200",
            memory_gb=180,
            hbm_tb_per_s=8,
            peak=B200,
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
