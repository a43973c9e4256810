"""The tasks that settings name, with where they stand. Pure."""

from __future__ import annotations

from rlstack.config.schema import RunConfig, Task


def task_sections(config: RunConfig) -> dict[str, list[Task]]:
    """The tasks of each section that has some: data and evaluation."""
    return {"data": config.data.tasks, "evaluation": config.evaluation.tasks}


def tasks_by_setting(config: RunConfig) -> dict[str, Task]:
    """Every task by its setting: data.tasks[0], ..., evaluation.tasks[0], ..."""
    return {
        f"{section}.tasks[{i}]": task
        for section, tasks in task_sections(config).items()
        for i, task in enumerate(tasks)
    }
