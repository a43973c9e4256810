"""Which link a group of GPUs talks over."""

from __future__ import annotations

from rlstack.tuning.planning.demand import Demand

_BYTES_PER_GB = 10**9


def link_of(demand: Demand, *, num_gpus: int) -> tuple[float, float]:
    """Bytes per second and direction of a GPU in a group of that many, and the share of it to be had."""
    gpu, assumed = demand.gpu, demand.assumptions
    if num_gpus <= gpu.gpus_per_node:
        return gpu.nvlink_gb_per_s * _BYTES_PER_GB, assumed.nvlink_efficiency
    return gpu.network_gb_per_s * _BYTES_PER_GB, assumed.network_efficiency


def nvlink(demand: Demand) -> float:
    """Bytes per second and direction of a GPU within its node."""
    return demand.gpu.nvlink_gb_per_s * _BYTES_PER_GB
