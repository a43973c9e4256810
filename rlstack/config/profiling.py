"""The steps that are traced. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from rlstack.config.schema import RunConfig, Telemetry


def is_profiled(telemetry: Telemetry, step: int) -> bool:
    """Return True if `step`, from 1 as in metrics.jsonl, is one of `telemetry.profile_steps`."""
    if telemetry.profile_steps is None:
        return False
    first, last = telemetry.profile_steps
    return first <= step <= last


def profile_problems(config: RunConfig) -> Iterator[str]:
    """Steps that are no range of the run's."""
    steps = config.telemetry.profile_steps
    if steps is None:
        return
    given, most = f"telemetry.profile_steps = {steps}", config.schedule.num_steps
    if len(steps) != 2 or not 1 <= steps[0] <= steps[1]:
        yield f"{given}: the first and the last of some steps are accepted, from 1 on; give two, as in [2,3]"
    elif steps[0] > most:
        yield (
            f"{given}: steps up to schedule.num_steps = {most} are accepted, for the run ends there; give "
            "earlier ones"
        )
