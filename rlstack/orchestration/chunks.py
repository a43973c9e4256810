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
    version, most = schedule.version_for(step), max(1, max_steps // 2)
    begins = step == 0 or schedule.version_for(step - 1) != version
    after = step + (max_steps + 1 if begins else most)
    stop = next((t for t in range(step, after) if not _writes(schedule, version, t)), after)
    return range(step, stop if stop < after else step + most)


def _writes(schedule: Schedule, version: int, step: int) -> bool:
    return step < schedule.num_steps and schedule.version_for(step) == version
