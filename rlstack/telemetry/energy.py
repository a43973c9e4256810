"""From samples of GPUs to joules and means over stretches of time, and to fewer samples. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from rlstack.telemetry.nvml import Sample


class GpuUse(NamedTuple):
    """Of several GPUs together, in a stretch of time; None where nothing was told."""

    joules: float | None
    use: float | None  # mean share of the time in which a kernel ran
    memory_gib: float | None  # the largest
    temperature_c: float | None  # the highest


class GpuThinning:
    """Makes of the samples of each GPU fewer ones, the further apart the longer the run has lasted.

    A sample that is left has the mean power and use, and the largest memory and temperature, of those since
    the one before. They are ROWS_OF_ALL in all the time that has passed apart: within any e-fold of a run's
    duration a GPU has ROWS_OF_ALL of them, and within the first minutes all.
    """

    ROWS_OF_ALL = 256

    def __init__(self) -> None:
        self._pending: dict[tuple[str, str], list[Sample]] = {}  # by role and GPU
        self._last_s: dict[tuple[str, str], float] = {}

    def thinned(self, samples: Iterable[Sample], *, elapsed_s: float) -> list[Sample]:
        """Return the samples that stand for `samples`, the newest ones, after `elapsed_s` of the run."""
        left = []
        for sample in samples:
            gpu = sample.role, sample.gpu
            self._pending.setdefault(gpu, []).append(sample)
            if sample.time_s - self._last_s.get(gpu, -math.inf) >= elapsed_s / self.ROWS_OF_ALL:
                self._last_s[gpu] = sample.time_s
                left.append(_merged(self._pending.pop(gpu)))
        return left

    def rest(self) -> list[Sample]:
        """One sample of each GPU for those that wait for later ones."""
        left = [_merged(samples) for samples in self._pending.values()]
        self._pending.clear()
        return left


def _merged(samples: Sequence[Sample]) -> Sample:
    """One at the time of the last."""
    if len(samples) == 1:
        return samples[0]
    power_w, use, memory_gib, temperature_c = (
        [value for sample in samples if (value := getattr(sample, name)) is not None]
        for name in ("power_w", "use", "memory_gib", "temperature_c")
    )
    return samples[-1]._replace(
        power_w=math.fsum(power_w) / len(power_w) if power_w else None,
        use=math.fsum(use) / len(use) if use else None,
        memory_gib=max(memory_gib, default=None),
        temperature_c=max(temperature_c, default=None),
    )


def gpu_use(samples: Sequence[Sample], start_s: float, end_s: float) -> GpuUse:
    """What the samples of some roles say about the time from `start_s` to `end_s`."""
    inside = [sample for sample in samples if start_s <= sample.time_s <= end_s]
    use = [share for of_gpu in _by_gpu(inside) if (share := _mean_use(of_gpu)) is not None]
    return GpuUse(
        joules=_sum([joules(of_gpu, start_s, end_s) for of_gpu in _by_gpu(samples)]),
        use=math.fsum(use) / len(use) if use else None,
        memory_gib=max((s.memory_gib for s in inside if s.memory_gib is not None), default=None),
        temperature_c=max((s.temperature_c for s in inside if s.temperature_c is not None), default=None),
    )


def _mean_use(samples: Sequence[Sample]) -> float | None:
    """Of one GPU: each sample counts for the time since the one before, for which it stands."""
    known = [(sample.time_s, sample.use) for sample in samples if sample.use is not None]
    if not known:
        return None
    times, use = np.array(sorted(known)).T
    seconds = np.diff(times, prepend=times[0])
    return float(np.average(use, weights=seconds)) if seconds.any() else float(use.mean())


def by_role(samples: Iterable[Sample]) -> dict[str, list[Sample]]:
    """The samples of each role, in their order."""
    of_role: dict[str, list[Sample]] = {}
    for sample in samples:
        of_role.setdefault(sample.role, []).append(sample)
    return of_role


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
