"""The steps that are traced, and those of which all spans are kept. Pure."""

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
    telemetry, most = config.telemetry, config.schedule.num_steps
    ranges = {"profile_steps": telemetry.profile_steps, "timeline_steps": telemetry.timeline_steps}
    for name, steps in ranges.items():
        given = f"telemetry.{name} = {steps}"
        if steps is None:
            continue
        if len(steps) != 2 or not 1 <= steps[0] <= steps[1]:
            accepted = "the first and the last of some steps are accepted, from 1 on"
            yield f"{given}: {accepted}; give two, as in [2,3]"
        elif steps[0] > most:
            yield (
                f"{given}: steps up to schedule.num_steps = {most} are accepted, for the run ends there; "
                "give earlier ones"
            )
