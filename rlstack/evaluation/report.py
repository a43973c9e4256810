"""What an evaluation comes to: evaluation.json and the table on the terminal. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from rlstack.config.schema import RunConfig
from rlstack.data.records import Outcome
from rlstack.evaluation.answers import AnsweredPrompt
from rlstack.evaluation.identity import sampling_settings
from rlstack.evaluation.task_measures import by_task, overall_accuracy, task_measures


def evaluation_report(
    answered: Sequence[AnsweredPrompt], config: RunConfig, *, version: int | None
) -> dict[str, Any]:
    """The content of evaluation.json, less what the command adds about itself.

    Args:
        answered: the prompts of the evaluation's tasks.
        version: optimiser steps of the model, None if it is not of a run.
    """
    accuracy = overall_accuracy(answered)
    return {
        "model": config.policy.model,
        "version": version,
        "settings": sampling_settings(config),
        "accuracy": accuracy[0] if accuracy else None,
        "accuracy_stderr": accuracy[1] if accuracy else None,
        "tasks": {task: _task(of_task) for task, of_task in by_task(answered).items()},
    }


def _task(answered: Sequence[AnsweredPrompt]) -> dict[str, Any]:
    outcomes = Counter(outcome for prompt in answered for outcome in prompt.outcomes)
    return {
        "num_prompts": len(answered),
        "num_answers": sum(len(prompt.responses) for prompt in answered),
        "timeouts": outcomes[Outcome.timeout],
        "errors": outcomes[Outcome.error],
        **task_measures(answered),
    }


def report_table(report: Mapping[str, Any]) -> Table:
    """A column for each task, a row for each measure that one of them has."""
    tasks = report["tasks"]
    table = Table("", *tasks, box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    columns = [_cells(of_task, n=report["settings"]["n"]) for of_task in tasks.values()]
    for name in dict.fromkeys(name for cells in columns for name in cells):
        table.add_row(name, *(cells.get(name, "-") for cells in columns))
    return table


def _cells(of_task: Mapping[str, Any], *, n: int) -> dict[str, str]:
    cells = {"problems": str(of_task["num_prompts"])}
    if "accuracy" in of_task:
        cells["accuracy"] = f"{of_task['accuracy']:.3f}"
        if of_task["majority"] is not None:
            cells["majority vote"] = f"{of_task['majority']:.3f}"
        if n > 1:
            cells["accuracy"] += f" ± {of_task['accuracy_stderr']:.3f}"
            cells[f"pass@{n}"] = f"{of_task[f'pass_at_{n}']:.3f}"
    elif of_task["reward"] is not None:
        cells["reward"] = f"{of_task['reward']:.3f}"
        cells["reward / length"] = f"{of_task['length_normalised_reward']:.2e}"
    cells["length (tokens)"] = f"{of_task['length_mean']:.1f}"
    cells["cut off"] = f"{of_task['cut_off']:.1%}"
    if unscored := of_task["timeouts"] + of_task["errors"]:
        cells["not scored"] = f"{unscored} of {of_task['num_answers']}"
    return cells
