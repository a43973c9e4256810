"""From samples of GPUs to joules and means over stretches of time. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from rlstack.telemetry.nvml import Sample
from rlstack.telemetry.waiting import kind_of


class GpuUse(NamedTuple):
    """Of several GPUs together, in a stretch of time; None where nothing was told."""

    joules: float | None
    use: float | None  # mean share of the time in which a kernel ran
    memory_gib: float | None  # the largest
    temperature_c: float | None  # the highest


def gpu_use(samples: Sequence[Sample], start_s: float, end_s: float) -> GpuUse:
    """What the samples of some roles say about the time from `start_s` to `end_s`."""
    inside = [sample for sample in samples if start_s <= sample.time_s <= end_s]
    use = [sample.use for sample in inside if sample.use is not None]
    return GpuUse(
        joules=_sum([joules(of_gpu, start_s, end_s) for of_gpu in _by_gpu(samples)]),
        use=math.fsum(use) / len(use) if use else None,
        memory_gib=max((s.memory_gib for s in inside if s.memory_gib is not None), default=None),
        temperature_c=max((s.temperature_c for s in inside if s.temperature_c is not None), default=None),
    )


def energy_by_kind(samples: Sequence[Sample], start_s: float, end_s: float) -> dict[str, float]:
    """Joules of all roles of a kind; kinds whose power is not known are left out."""
    of_kind: dict[str, list[Sample]] = {}
    for sample in samples:
        of_kind.setdefault(kind_of(sample.role), []).append(sample)
    used = {kind: gpu_use(alike, start_s, end_s).joules for kind, alike in of_kind.items()}
    return {kind: joules for kind, joules in used.items() if joules is not None}


def joules(samples: Sequence[Sample], start_s: float, end_s: float) -> float | None:
    """One GPU's energy: power is linear between samples and constant before the first and after the last.

    None if no sample tells the power, or if `start_s` is not before `end_s`.
    """
    known = sorted((s.time_s, s.power_w) for s in samples if s.power_w is not None)
    if not known or start_s >= end_s:
        return None
    times, powers = np.array(known).T
    inside = times[(times > start_s) & (times < end_s)]
    edges = np.concatenate([[start_s], inside, [end_s]])
    return float(np.trapezoid(np.interp(edges, times, powers), edges))


def _by_gpu(samples: Sequence[Sample]) -> list[list[Sample]]:
    of_gpu: dict[tuple[str, str], list[Sample]] = {}  # roles on different nodes may name theirs alike
    for sample in samples:
        of_gpu.setdefault((sample.role, sample.gpu), []).append(sample)
    return list(of_gpu.values())


def _sum(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) if known else None
