"""The checks before a run, in the order in which their problems are shown."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from rlstack.config.loggers import missing_packages
from rlstack.config.own_code import refuse_unknown_names
from rlstack.config.tasks import tasks_by_setting
from rlstack.config.validate import layout_problems, missing_inputs, setting_problems
from rlstack.errors import ConfigError
from rlstack.losses.own import load_loss
from rlstack.policy.architecture import Architecture
from rlstack.policy.weight_index import weight_files
from rlstack.preflight.planned import Planned
from rlstack.preflight.runner import Check


def _inputs(planned: Planned) -> Iterator[str]:
    yield from missing_inputs(planned.config)
    yield from missing_packages(planned.config.telemetry)


def _settings(planned: Planned) -> list[str]:
    return setting_problems(planned.config)


def _model(planned: Planned) -> Iterator[str]:
    folder = Path(planned.config.policy.model)
    planned.architecture = Architecture.from_folder(folder)
    weight_files(folder)  # for what it refuses
    yield from ()


def _layout(planned: Planned) -> list[str]:
    assert planned.architecture is not None, "the model has been read"
    return layout_problems(planned.config, architecture=planned.architecture, machine=planned.machine)


def _names(planned: Planned) -> Iterator[str]:
    refuse_unknown_names(planned.config, planned.own)
    yield from ()


def _loss(planned: Planned) -> Iterator[str]:
    if (name := planned.config.objective.loss) is not None:
        planned.own = replace(planned.own, loss=load_loss(name, planned.own.loss))
    yield from ()


def _rows(planned: Planned) -> Iterator[str]:
    """Every dataset for itself, without a tokenizer, which takes seconds to import."""
    from rlstack.data.datasets import read_task

    for where, task in tasks_by_setting(planned.config).items():
        if os.path.exists(task.path):  # otherwise it has been said
            try:
                read_task(task, where=where)
            except ConfigError as error:
                yield from str(error).splitlines()


def _prompts(planned: Planned) -> Iterator[str]:
    from rlstack.data.load import load_prompts  # imports transformers

    planned.prompts, planned.held_out = load_prompts(planned.config)
    yield from ()


CHECKS = (
    Check("inputs", _inputs),
    Check("settings", _settings),
    Check("model", _model),
    Check("layout", _layout, needs=("settings", "model")),
    Check("own names", _names),
    Check("loss", _loss),
    Check("rows", _rows),
    # From here on everything else is known to be right, as far as it is known by then: these take long.
    Check("prompts", _prompts, needs=("inputs", "settings", "model", "layout", "rows"), is_slow=True),
)
