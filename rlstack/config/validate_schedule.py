"""What validate.py refuses about the schedule."""

from __future__ import annotations

from collections.abc import Iterator

from rlstack.config.schedule_words import AUTO, NEVER, WITH_GENERATOR
from rlstack.config.schema import RunConfig
from rlstack.config.sequences import max_steps_ahead


def schedule_problems(config: RunConfig) -> list[str]:
    """Intervals, lags and bounds that cannot work, alone or together."""
    return [*_interval(config)] or [*_lag(config), *_evaluations(config), *_reference(config)]


def _interval(config: RunConfig) -> Iterator[str]:
    interval = config.schedule.sync_interval
    if isinstance(interval, str) and interval != AUTO:
        yield f"schedule.sync_interval = {interval}: {AUTO} | a number of steps from 1 | null is accepted"
    adaptive = config.schedule.adaptive
    if not adaptive.min <= adaptive.start <= adaptive.max:
        yield (
            f"schedule.adaptive.start = {adaptive.start}: from schedule.adaptive.min = {adaptive.min} to "
            f"schedule.adaptive.max = {adaptive.max} is accepted; change one of the three"
        )
    if adaptive.replay is not None and interval != AUTO:
        yield (
            f"schedule.adaptive.replay = {adaptive.replay}: null is accepted with schedule.sync_interval = "
            f"{'null' if interval is None else interval}; set that to {AUTO}"
        )


def _lag(config: RunConfig) -> Iterator[str]:
    schedule = config.schedule
    if schedule.lag > 0 and schedule.sync_interval is None:
        yield (
            f"schedule.lag = {schedule.lag}: 0 is accepted when schedule.sync_interval is null (offline "
            "never syncs); set one or the other"
        )
    most, rollout = max_steps_ahead(config), config.rollout
    if schedule.lag > rollout.max_steps_ahead:
        yield (
            f"schedule.lag = {schedule.lag}: at most rollout.max_steps_ahead = "
            f"{rollout.max_steps_ahead} is accepted; raise that or lower the lag"
        )
    elif schedule.lag > most:
        yield (
            f"schedule.lag = {schedule.lag}: at most {most} is accepted, the steps whose rollouts fit "
            f"rollout.max_ahead_gib = {rollout.max_ahead_gib:g}; raise that or lower the lag"
        )


def _evaluations(config: RunConfig) -> Iterator[str]:
    every, interval = config.schedule.evaluate_every, config.schedule.sync_interval
    if every is None or interval == AUTO:  # then a sync is made to fall on each evaluation
        return
    if interval is None:
        yield (
            f"schedule.evaluate_every = {every}: null is accepted offline, where the generator holds version "
            "0 until the end; the first and the last version are evaluated anyway"
        )
    elif isinstance(interval, int) and every % max(interval, 1):
        yield (
            f"schedule.evaluate_every = {every}: a multiple of schedule.sync_interval = {interval} is "
            "accepted, for in between the generator's version stays the same"
        )


def _reference(config: RunConfig) -> Iterator[str]:
    every = config.schedule.reference_sync
    if not (every in (NEVER, WITH_GENERATOR) if isinstance(every, str) else every >= 1):
        accepted = " | ".join((NEVER, WITH_GENERATOR))
        yield f"schedule.reference_sync = {every}: {accepted} | a number of steps from 1 is accepted"
