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

BAND = "Lines: means over seeds; bands: lowest to highest seed."


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
        yield text(line[:1].upper() + line[1:] + ".")


def _key_figures(made: Mapping[str, Any]) -> dict[str, str]:
    rows = {row["interval"]: row for row in made["measures"]}
    chosen, online = rows[made["recommended"]], rows[1]
    return {
        "recommended s": str(made["recommended"]),
        "reward gained per hour": f"{chosen['per_hour']['mean']:.3g}",
        "online's": f"{online['per_hour']['mean']:.3g}",
        "s per step": f"{chosen['step_s']['mean']:.3f}",
        "online's s per step": f"{online['step_s']['mean']:.3f}",
        "reward, last steps": f"{chosen['reward']['mean']:.3f}",
        "online's reward": f"{online['reward']['mean']:.3f}",
    }


def _courses(made: Mapping[str, Any]) -> Block:
    plan = made["plan"]
    held = f"A run holds {plan['accelerators']} {plan['accelerator']}."
    return side_by_side(
        [
            figure(reward_against(made, "minutes"), caption=f"Reward against time. {BAND}"),
            figure(reward_against(made, "hours"), caption=f"Reward against accelerator-hours. {held}"),
            figure(reward_against(made, "steps"), caption=f"Reward against steps. {BAND}"),
        ]
    )


def _costs(made: Mapping[str, Any]) -> Block:
    confidence = f"{made['plan']['confidence']:.0%}"
    return side_by_side(
        [
            figure(
                cost_against_reward(made),
                caption=f"Reward per step against what syncing costs. Bars: {confidence} intervals.",
            ),
            figure(breakdown(made), caption="What the trainer does in a step, and the cost model's step."),
        ]
    )


def _definitions(made: Mapping[str, Any]) -> str:
    plan = made["plan"]
    return (
        f"Reward is the mean of the last {plan['last_steps']} steps; in brackets are the "
        f"{plan['confidence']:.0%} intervals. Reward gained per hour is that reward less the untrained "
        "policy's, over the time of all steps. The target is the reward that online ends with in the same "
        f"seed, less the margin of {plan['margin']:g}. Rollouts are up to s - 1 steps older than the policy, "
        "which leans against large s."
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
