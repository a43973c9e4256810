"""The section of a report with the run's rollouts, to filter and search; page/rollouts.js shows them."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping

from rlstack.telemetry.html_page import Block, Section, text
from rlstack.telemetry.rollout_shards import ROLLOUTS
from rlstack.telemetry.rollouts.groups import Selection, select
from rlstack.telemetry.run_record import RunRecord

DATA = "rollouts-data"
OUTCOMES = {
    "": "all",
    "correct": "correct",
    "incorrect": "incorrect",
    "unscored": "without a reward",
    "cut-off": "cut off",
}
ORDERS = {
    "": "by step",
    "newest": "newest first",
    "spread": "by spread of rewards",
    "lowest": "by lowest mean reward",
}


def rollouts_section(run: RunRecord) -> Section | None:
    """None for a run without rollouts.

    Raises ConfigError if its file of them is damaged.
    """
    found = select(run.path / ROLLOUTS, n=run.settings["rollout"]["n"], name=DATA)
    if found is None:
        return None
    return Section("Rollouts", [text(_how_many(found)), _browser(found)])


def _how_many(found: Selection) -> str:
    if found.shown_rollouts == found.num_rollouts:
        return f"All {found.num_rollouts:,} rollouts of {found.num_steps} steps, group by group."
    return (
        f"{found.shown_rollouts:,} of {found.num_rollouts:,} rollouts: whole groups, evenly chosen, of "
        f"{found.shown_steps} of {found.num_steps} steps. All of them are in {ROLLOUTS} and its shards."
    )


def _browser(found: Selection) -> Block:
    tasks = sorted({str(group["task"]) for group in found.groups})
    steps = sorted({group["step"] for group in found.groups})
    controls = [
        _choice("Task", "task", {"": "all", **{task: task for task in tasks}}),
        _choice("Outcome", "outcome", OUTCOMES),
        '<label>Step <input name="step" list="rollouts-steps" placeholder="40 or 40-60" '
        'pattern="\\s*\\d+\\s*(-\\s*\\d+\\s*)?" autocomplete="off"></label>',
        '<label>Search <input name="q" type="search" placeholder="in all texts"></label>',
        _choice("Order", "sort", ORDERS),
        '<label class="tick"><input name="whole" type="checkbox" value="1"> whole groups</label>',
        '<button type="reset">Reset</button>',
    ]
    return Block(
        f'<form class="controls" id="rollouts-controls">{"".join(controls)}</form>'
        f'<datalist id="rollouts-steps">{_options(map(str, steps))}</datalist>'
        '<p class="caption" id="rollouts-count" role="status">The rollouts are shown by a script.</p>'
        '<div id="rollouts-groups"></div>'
        '<button type="button" id="rollouts-more" hidden>Show more</button>'
        f"{found.markup}",
        frozenset({"rollouts.js"}),
    )


def _choice(label: str, name: str, options: Mapping[str, str]) -> str:
    inside = "".join(
        f'<option value="{html.escape(value)}">{html.escape(shown)}</option>'
        for value, shown in options.items()
    )
    return f'<label>{label} <select name="{name}">{inside}</select></label>'


def _options(values: Iterable[str]) -> str:
    return "".join(f'<option value="{html.escape(value)}"></option>' for value in values)
