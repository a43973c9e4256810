"""report.html of a tuning, from tune.json alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rlstack.telemetry.html_page import (
    Block,
    Section,
    code,
    facts,
    figure,
    folded,
    side_by_side,
    table,
    text,
    write_page,
)
from rlstack.tuning.interval.document import NO_RECOMMENDATION
from rlstack.tuning.interval.figures import breakdown, cost_against_reward, reward_against
from rlstack.tuning.interval.tables import measures_table, rounds_table, trials_table

BAND = "Lines: means over seeds; bands: lowest to highest seed. What was dropped early has fewer seeds."


def write_report(made: Mapping[str, Any], path: Path) -> None:
    """Write the page; `made` is tune.json's content."""
    plan = made["plan"]
    write_page(
        path,
        title=f"The sync interval of {made['config']}",
        subtitle=f"{made['date']}, {made['machine']['num_cores']} cores, "
        f"{len(made['trials'])} trials of {plan['num_steps']} steps: {made['command']}",
        sections=list(_sections(made)),
    )


def _sections(made: Mapping[str, Any]) -> Iterator[Section]:
    yield Section("Recommendation", list(_recommendation(made)))
    if made["measures"]:
        yield Section("Reward against time and steps", [_courses(made)])
        yield Section("What the interval costs", [_costs(made)])
        header, rows = measures_table(made)
        yield Section("Measures", [table(header, rows, words=[4]), text(_definitions(made))])
    yield Section("How it was measured", list(_method(made)))


def _recommendation(made: Mapping[str, Any]) -> Iterator[Block]:
    if made["recommended"] is None:
        yield text(f"{NO_RECOMMENDATION.capitalize()}.")
    else:
        yield facts(_key_figures(made))
        yield code(made["paste"])
    for line in (*made["reasons"], *made["notes"]):
        yield text(line)


def _key_figures(made: Mapping[str, Any]) -> dict[str, str]:
    rows = {row["interval"]: row for row in made["measures"]}
    chosen, online = rows[made["recommended"]], rows[1]

    def beside_online(measure: str, digits: int) -> str:
        ours, theirs = (f"{row[measure]['mean']:.{digits}f}" for row in (chosen, online))
        return f"{ours}, online {theirs}"

    return {
        "recommended s": str(made["recommended"]),
        "reward gained per hour": beside_online("per_hour", 1),
        "seconds per step": beside_online("step_s", 3),
        "reward, last steps": beside_online("reward", 3),
    }


def _courses(made: Mapping[str, Any]) -> Block:
    plan = made["plan"]
    held = f"A run holds {plan['accelerators']} {plan['accelerator']}."
    return side_by_side(
        [
            figure(reward_against(made, "minutes"), caption=f"Reward against time. {BAND}", height_px=400),
            figure(
                reward_against(made, "hours"),
                caption=f"Reward against accelerator-hours. {held}",
                height_px=400,
            ),
            figure(reward_against(made, "steps"), caption="Reward against steps.", height_px=400),
        ]
    )


def _costs(made: Mapping[str, Any]) -> Block:
    confidence = f"{made['plan']['confidence']:.0%}"
    return side_by_side(
        [
            figure(
                cost_against_reward(made),
                caption=f"Reward per step against what syncing costs. Bars: {confidence} intervals.",
                height_px=400,
            ),
            figure(
                breakdown(made),
                caption="What the trainer does in a step, and the cost model's step.",
                height_px=400,
            ),
        ]
    )


def _definitions(made: Mapping[str, Any]) -> str:
    plan = made["plan"]
    return (
        f"Reward is the mean of the last {plan['last_steps']} steps; ± is half of the "
        f"{plan['confidence']:.0%} interval. Per hour is the reward gained, that is less the untrained "
        "policy's, over the time of all steps; in equal time is the mean reward up to the end of the "
        "shortest trial. The target is the reward that online ends with in the same seed, less the margin "
        f"of {plan['margin']:g}. Rollouts are up to s - 1 steps older than the policy, which leans against "
        "large s."
    )


def _method(made: Mapping[str, Any]) -> Iterator[Block]:
    yield text(made["method"])
    header, rows = rounds_table(made)
    yield table(header, rows, words=[0, 1, 2])
    for failure in made["failures"]:
        yield text(f"Failed: s = {failure['interval']}, seed {failure['seed']}: {failure['reason']}")
    header, rows = trials_table(made)
    yield folded("All trials", [table(header, rows)])
    versions = ", ".join(f"{name} {version}" for name, version in made["versions"].items())
    yield folded("Machine and versions", [text(f"{made['machine']['cpu']}; {versions}")])
