"""Which policy version writes a step's rollouts, and what happens between two steps. Pure.

A version is the number of optimiser steps that the weights have taken; step t turns version t into t + 1.

    version_for(step) = 0                                     if sync_interval is None
                      = max(0, step - lag) // s * s           otherwise

    step                         0 1 2 3 4 5
    offline       s=None         0 0 0 0 0 0
    semi-online   s=3            0 0 0 3 3 3
    online        s=1            0 1 2 3 4 5
    one step off  s=1, lag=1     0 0 1 2 3 4

The rollouts of a step may start as soon as the generator holds `version_for(step)`. The sync at version v
always precedes the first step that needs v, so waiting for it cannot deadlock.

adaptive_schedule.py has the schedule whose s is chosen as the run goes (sync_interval = auto).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rlstack.config.schedule_words import WITH_GENERATOR
from rlstack.config.schema import Schedule as ScheduleConfig
from rlstack.orchestration.sync_cost import Row


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """The regime of a run. Versions are counted in optimiser steps; steps from 0."""

    num_steps: int
    sync_interval: int | None  # s; None: offline
    lag: int = 0
    reference_interval: int | None = None  # None: the reference stays at version 0
    evaluate_every: int | None = None
    save_every: int | None = None

    @classmethod
    def of(cls, config: ScheduleConfig) -> Schedule:
        """The schedule that the settings describe; they have been validated, and s is not auto."""
        interval = config.sync_interval
        assert not isinstance(interval, str), "build_schedule makes the schedule for auto"
        reference = interval if config.reference_sync == WITH_GENERATOR else config.reference_sync
        return cls(
            num_steps=config.num_steps,
            sync_interval=interval,
            lag=config.lag,
            reference_interval=reference if isinstance(reference, int) else None,
            evaluate_every=config.evaluate_every,
            save_every=config.save_every,
        )

    def version_for(self, step: int) -> int:
        """The version that writes the rollouts of `step`."""
        return self.generator_version_at(max(0, step - self.lag))

    def generator_version_at(self, step: int) -> int:
        """The version that the generator holds when the policy has taken `step` steps.

        A run that goes on from a checkpoint has to put it there: the policy's own version is a later one
        inside an interval.
        """
        return _last_before(step, self.sync_interval)

    def reference_version_at(self, step: int) -> int:
        """As `generator_version_at`, of the reference."""
        return _last_before(step, self.reference_interval)

    def decide(self, version: int, rows: Sequence[Row]) -> dict[str, Any] | None:
        """What is decided about the interval that begins at `version`: a sync's, or 0. Here nothing is."""
        return None

    def go_on_after(self, decisions: Sequence[Row]) -> None:
        """Take over the rows of intervals.jsonl that another schedule left; here there are none."""

    def interval_at(self, step: int) -> int | None:
        """How many steps are taken from the sync before `step` to the next one; None: there is no other."""
        return self.sync_interval

    def metrics(self, step: int) -> dict[str, float]:
        """`interval_at` as a metric of the step; nothing offline."""
        interval = self.interval_at(step)
        return {} if interval is None else {"schedule/sync_interval": interval}

    def syncs_at(self, version: int) -> bool:
        """Whether the generator receives `version`."""
        return _falls_on(version, self.sync_interval)

    def reference_syncs_at(self, version: int) -> bool:
        """Whether the reference becomes `version`."""
        return _falls_on(version, self.reference_interval)

    def evaluates_at(self, version: int) -> bool:
        """Whether held-out accuracy is measured between the steps; the first and last version always are."""
        return version < self.num_steps and _falls_on(version, self.evaluate_every)

    def saves_at(self, version: int) -> bool:
        """Whether a checkpoint of `version` is written: every so often, and of the last version."""
        return self.save_every is not None and (
            version == self.num_steps or _falls_on(version, self.save_every)
        )


def _last_before(step: int, interval: int | None) -> int:
    return 0 if interval is None else step // interval * interval


def _falls_on(version: int, interval: int | None) -> bool:
    return interval is not None and version > 0 and version % interval == 0
