"""A plan that fits the time there is: what is given up, and in which order. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from rlstack.errors import ConfigError
from rlstack.tuning.interval.halving import Plan
from rlstack.tuning.interval.intervals import fits

FEWEST_STEPS = 40  # what a trial is shortened to at most

TrialSeconds = Callable[[Plan], float]  # of all trials of a plan


def shorten(plan: Plan, budget_s: float, seconds_of: TrialSeconds) -> Plan:
    """The first of `shorter_plans` that takes no more than `budget_s`.

    Raises ConfigError if none does.
    """
    shortest_s = seconds_of(plan)
    for candidate in shorter_plans(plan):
        if (shortest_s := seconds_of(candidate)) <= budget_s:
            return candidate
    raise ConfigError(
        f"--budget-minutes: at least {shortest_s / 60:.0f} more minutes are needed by the shortest tuning, "
        f"{budget_s / 60:.0f} are left; raise it, or give fewer --intervals and --steps"
    )


def shorter_plans(plan: Plan) -> Iterator[Plan]:
    """The plan, then ever shorter ones: seeds go first, down to two, then every second interval, then half of
    the steps with the intervals that are too long for the rest, and at last the second seed."""
    yield plan
    while len(plan.seeds) > 2:
        plan = replace(plan, seeds=plan.seeds[:-1])
        yield plan
    while len(plan.intervals) > 3:
        plan = replace(plan, intervals=plan.intervals[::2])
        yield plan
    while plan.num_steps // 2 >= FEWEST_STEPS:
        num_steps = plan.num_steps // 2
        kept = tuple(s for s in plan.intervals if fits(s, num_steps, plan.lag))
        if len(kept) < 2:
            break
        plan = replace(plan, num_steps=num_steps, intervals=kept)
        yield plan
    if len(plan.seeds) > 1:
        yield replace(plan, seeds=plan.seeds[:1])
