"""The steps that are traced, those of which all spans are kept, and the prompts whose rollouts are. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from rlstack.config.schema import RunConfig, Telemetry


def is_profiled(telemetry: Telemetry, step: int) -> bool:
    """Return True if `step`, from 1 as in metrics.jsonl, is one of `telemetry.profile_steps`."""
    if telemetry.profile_steps is None:
        return False
    first, last = telemetry.profile_steps
    return first <= step <= last


def num_logged_prompts(telemetry: Telemetry) -> int | None:
    """The number of prompts of a step whose rollouts are logged; None: all of them."""
    if telemetry.rollouts == "all":
        return None
    return 0 if telemetry.rollouts == "none" else int(telemetry.rollouts.removeprefix("sample:"))


def rollouts_problems(telemetry: Telemetry) -> Iterator[str]:
    """A value of telemetry.rollouts that is none."""
    if not re.fullmatch(r"all|none|sample:[1-9]\d{0,8}", telemetry.rollouts, re.ASCII):
        yield (
            f"telemetry.rollouts = {telemetry.rollouts}: all | sample:N | none is accepted; sample:8 logs "
            "the rollouts of 8 prompts of each step"
        )


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
