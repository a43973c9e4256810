"""What each sync interval and each role's GPUs cost, for people. Pure."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence

from rlstack.telemetry.energy import gpu_use
from rlstack.telemetry.nvml import Sample
from rlstack.telemetry.occupancy import Occupancy, Piece, within
from rlstack.telemetry.timeline import Span

INTERVAL_HEADER = ["steps", "role", "busy, s", "waiting, s", "idle, s", "energy, J"]
GPU_HEADER = ["role", "mean power, W", "energy, kJ", "use, %", "memory, GiB", "temperature, °C"]


def intervals(steps: Sequence[Span], synced: Container[int | None]) -> list[Sequence[Span]]:
    """The steps from one sync to the next; `synced` are those that ended with one."""
    ends = [i + 1 for i, step in enumerate(steps) if step.step in synced or i + 1 == len(steps)]
    return [steps[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def interval_rows(
    parts: Sequence[Sequence[Span]], pieces: Mapping[str, Sequence[Piece]], samples: Sequence[Sample]
) -> Iterator[list[str]]:
    """A row for each interval and role; without power there is no energy."""
    of_role = by_role(samples)
    for steps in parts:
        start_s, end_s = steps[0].start_s, steps[-1].end_s
        for role, own in pieces.items():
            seconds = Occupancy.of(within(own, start_s, end_s))
            parts_s = (sum(seconds.busy_s.values()), sum(seconds.waiting_s.values()), seconds.idle_s)
            joules = gpu_use(of_role.get(role, []), start_s, end_s).joules
            span = f"{steps[0].step} to {steps[-1].step}"
            yield [span, role, *(f"{spent:.3f}" for spent in parts_s), _shown(joules, 1)]


def gpu_rows(samples: Sequence[Sample], start_s: float, end_s: float) -> Iterator[list[str]]:
    """A row for each role that holds GPUs, all of its GPUs together, over a stretch of time."""
    for role, own in by_role(samples).items():
        used = gpu_use(own, start_s, end_s)
        power_w = None if used.joules is None else used.joules / (end_s - start_s)
        energy_kj = None if used.joules is None else used.joules / 1e3
        use = None if used.use is None else 100 * used.use
        shown = (power_w, energy_kj, use, used.memory_gib, used.temperature_c)
        yield [role, *(_shown(value, 1) for value in shown)]


def by_role(samples: Sequence[Sample]) -> dict[str, list[Sample]]:
    """The samples of each role, in their order."""
    of_role: dict[str, list[Sample]] = {}
    for sample in samples:
        of_role.setdefault(sample.role, []).append(sample)
    return of_role


def _shown(value: float | None, decimals: int) -> str:
    return "–" if value is None else f"{value:.{decimals}f}"
