"""Where a step's time goes, on one clock."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rlstack.telemetry.waiting import Reason

# What the loop waits for in each.
PHASES = {
    "generate_wait": Reason.rollouts,
    "reward": Reason.reward,
    "train": Reason.training,
    "sync": Reason.sync,
    "evaluate": Reason.evaluation,
}


class Stopwatch:
    """Adds up phases, per lap (a step) and over all laps; a phase may be entered several times in a lap."""

    def __init__(self) -> None:
        self._started = self._lap_started = time.perf_counter()
        self._lap = dict.fromkeys(PHASES, 0.0)
        self.total_s = dict.fromkeys(PHASES, 0.0)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count the time inside towards `name`, one of PHASES; of a lap, only what lies within it."""
        started = time.perf_counter()
        try:
            yield
        finally:
            now = time.perf_counter()
            self._lap[name] += now - max(started, self._lap_started)
            self.total_s[name] += now - started

    def lap(self) -> dict[str, float]:
        """End the lap: time/step_s and time/<phase>_s since the last one, in seconds."""
        now = time.perf_counter()
        metrics = {"time/step_s": now - self._lap_started}
        metrics |= {f"time/{name}_s": spent for name, spent in self._lap.items()}
        self._lap_started = now
        self._lap = dict.fromkeys(PHASES, 0.0)
        return metrics

    def state(self) -> dict[str, Any]:
        """The keywords of `go_on` that lead to where this was at the last lap's end, as JSON has them."""
        totals = {name: total - self._lap[name] for name, total in self.total_s.items()}
        return {"total_s": totals, "elapsed_s": self._lap_started - self._started}

    def go_on(self, *, total_s: Mapping[str, float], elapsed_s: float) -> None:
        """Begin a lap, after phases that took `total_s`; of what has elapsed at least `elapsed_s` counts."""
        self.lap()
        self.total_s = {name: total_s.get(name, 0.0) for name in PHASES}
        self._started = min(self._started, self._lap_started - elapsed_s)

    @property
    def elapsed_s(self) -> float:
        return time.perf_counter() - self._started
