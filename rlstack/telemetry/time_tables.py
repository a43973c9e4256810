"""Where every role's time went and what its GPUs cost, for people: shares of the steps that add up. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from rlstack.telemetry.energy import by_role, gpu_use
from rlstack.telemetry.nvml import Sample
from rlstack.telemetry.occupancy import Occupancy, State
from rlstack.telemetry.run_record import StepTimes
from rlstack.telemetry.run_timeline import STEP

INTERVAL_HEADER = ["steps", "role", "busy, s", "waiting, s", "idle, s", "energy, J"]
GPU_HEADER = ["role", "mean power, W", "energy, kJ", "use, %", "memory, GiB", "temperature, °C"]


class Use(NamedTuple):
    """What time was used for: a state, and the phase or reason."""

    state: State
    what: str

    @property
    def label(self) -> str:
        words = "own work" if self.what == STEP else self.what.replace("_", " ")
        return {State.busy: words, State.waiting: f"waiting: {words}", State.idle: "idle"}[self.state]


def seconds_by_use(seconds: Occupancy) -> dict[Use, float]:
    """Busy first, then waiting, idle at the end."""
    uses = {Use(State.busy, phase): spent for phase, spent in sorted(seconds.busy_s.items())}
    uses |= {Use(State.waiting, reason): spent for reason, spent in sorted(seconds.waiting_s.items())}
    return uses | {Use(State.idle, ""): seconds.idle_s}


def percentages(parts: Sequence[float]) -> list[float]:
    """Shares of the parts' sum, rounded to a tenth so that they still add up to 100 (largest remainders)."""
    total = sum(parts)
    if total <= 0:
        return [0.0] * len(parts)
    exact = [1000 * part / total for part in parts]
    rounded = [int(share) for share in exact]
    by_remainder = sorted(range(len(parts)), key=lambda i: rounded[i] - exact[i])
    for i in by_remainder[: 1000 - sum(rounded)]:
        rounded[i] += 1
    return [share / 10 for share in rounded]


def share_rows(roles: Mapping[str, Occupancy]) -> Iterator[list[str]]:
    """A row for each role: its name, shares busy, waiting and idle, and what the two first are made of."""
    for role, seconds in roles.items():
        shares = [f"{share:.1f} %" for share in percentages(_by_state(seconds))]
        yield [role, *shares, _made_of(seconds.busy_s, seconds), _made_of(seconds.waiting_s, seconds)]


def interval_rows(intervals: Iterable[StepTimes], samples: Iterable[Sample]) -> Iterator[list[str]]:
    """A row for each interval and role; without power there is no energy."""
    of_role = by_role(samples)
    for interval in intervals:
        steps = f"{interval.first_step} to {interval.last_step}"
        for role, seconds in interval.roles.items():
            joules = _joules(role, interval, of_role)
            parts_s = (f"{spent:.3f}" for spent in _by_state(seconds))
            yield [steps, role, *parts_s, _shown(joules, 1)]


def gpu_rows(samples: Iterable[Sample], steps: StepTimes) -> Iterator[list[str]]:
    """A row for each role that holds GPUs, all of its GPUs together, over a stretch of steps."""
    of_role = by_role(samples)
    for role, own in of_role.items():
        used = gpu_use(own, steps.start_s, steps.end_s)
        joules = _joules(role, steps, of_role)
        spent_s = steps.seconds if role in steps.energy_j else steps.end_s - steps.start_s
        power_w = None if joules is None else joules / spent_s
        energy_kj = None if joules is None else joules / 1e3
        use = None if used.use is None else 100 * used.use
        shown = (power_w, energy_kj, use, used.memory_gib, used.temperature_c)
        yield [role, *(_shown(value, 1) for value in shown)]


def _joules(role: str, steps: StepTimes, samples: Mapping[str, Sequence[Sample]]) -> float | None:
    """As the laps have it; of runs of earlier versions, whose laps have none, as their samples say."""
    if role in steps.energy_j:
        return steps.energy_j[role]
    return gpu_use(samples.get(role, []), steps.start_s, steps.end_s).joules


def _by_state(seconds: Occupancy) -> list[float]:
    """Busy, waiting, idle."""
    return [sum(seconds.busy_s.values()), sum(seconds.waiting_s.values()), seconds.idle_s]


def _made_of(parts: Mapping[str, float], seconds: Occupancy) -> str:
    total_s = seconds.total_s or 1.0
    largest = sorted(parts.items(), key=lambda item: -item[1])
    shown = [(Use(State.busy, what).label, 100 * spent / total_s) for what, spent in largest]
    return ", ".join(f"{name} {share:.1f}" for name, share in shown if share >= 0.05)


def _shown(value: float | None, decimals: int) -> str:
    return "–" if value is None else f"{value:.{decimals}f}"
