"""Which steps' rollouts are asked for together, so that engines stay full from one step to the next. Pure."""

from __future__ import annotations

from rlstack.orchestration.schedule import Schedule


def chunk_at(schedule: Schedule, step: int, *, max_steps: int) -> range:
    """The steps from `step` on whose rollouts are one request; `step` is where a chunk begins.

    All are of one version. An interval of up to `max_steps` steps is one chunk; a longer one is cut into
    pieces of half of that, so that one can be under way while the other is being used up. That depends on the
    schedule alone: on an engine whose arithmetic depends on what is decoded together, the same seed still
    gives the same rollouts, however long anything takes.
    """
    interval = interval_of(schedule, step)
    size = len(interval) if len(interval) <= max_steps else max(1, max_steps // 2)
    return range(step, min(interval.stop, step + size))


def interval_of(schedule: Schedule, step: int) -> range:
    """The steps whose rollouts are of the same version as those of `step`."""
    version = schedule.version_for(step)
    first, stop = step, step + 1
    while first > 0 and schedule.version_for(first - 1) == version:
        first -= 1
    while stop < schedule.num_steps and schedule.version_for(stop) == version:
        stop += 1
    return range(first, stop)
