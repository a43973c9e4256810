"""The checks before a run, in the order in which their problems are shown."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from rlstack.config.loggers import missing_packages
from rlstack.config.own_code import refuse_unknown_names
from rlstack.config.reward_names import is_plugin
from rlstack.config.sequences import cache_problems
from rlstack.config.surroundings import surroundings_problems
from rlstack.config.tasks import tasks_by_setting
from rlstack.config.validate import layout_problems, machine_problems, missing_inputs, setting_problems
from rlstack.errors import ConfigError
from rlstack.losses.own import load_loss
from rlstack.policy.model_folder import check_model_folder
from rlstack.preflight import outside, run_folder, user_code
from rlstack.preflight.planned import Planned
from rlstack.preflight.runner import Check


def _inputs(planned: Planned) -> Iterator[str]:
    yield from missing_inputs(planned.config)
    yield from missing_packages(planned.config.telemetry)
    yield from surroundings_problems(planned.config)


def _settings(planned: Planned) -> list[str]:
    return setting_problems(planned.config)


def _model(planned: Planned) -> Iterator[str]:
    folder = Path(planned.config.policy.model)
    planned.architecture = check_model_folder(folder)
    yield from ()


def _layout(planned: Planned) -> list[str]:
    assert planned.architecture is not None, "the model has been read"
    return layout_problems(planned.config, architecture=planned.architecture, machine=planned.machine)


def _machine(planned: Planned) -> list[str]:
    return machine_problems(planned.config, planned.machine)


def _names(planned: Planned) -> Iterator[str]:
    refuse_unknown_names(planned.config, planned.own)
    yield from ()


def _loss(planned: Planned) -> Iterator[str]:
    name, own = planned.config.objective.loss, planned.own
    if name is not None and (own.loss is not None or is_plugin(name)):  # another has been refused
        planned.own = replace(own, loss=load_loss(name, own.loss))
    yield from ()


def _rows(planned: Planned) -> Iterator[str]:
    """Every dataset for itself, without a tokenizer, which takes seconds to import.

    One whose prompts have been kept on disk was found to be right when they were made.
    """
    from rlstack.data.datasets import read_task
    from rlstack.data.prompt_table import is_kept, table_key

    model = Path(planned.config.policy.model)
    for where, task in tasks_by_setting(planned.config).items():
        if os.path.exists(task.path):  # otherwise it has been said
            try:
                if not is_kept(table_key(task, model, where=where)):
                    deque(read_task(task, where=where), maxlen=0)
            except ConfigError as error:
                yield from str(error).splitlines()


def _prompts(planned: Planned) -> Iterator[str]:
    from rlstack.data.load import load_prompts, max_prompt_tokens  # imports transformers

    config, machine = planned.config, planned.machine
    planned.prompts, planned.held_out = load_prompts(config)
    if machine.num_gpus == 0 and config.cluster.address is None:
        assert planned.architecture is not None, "the model has been read"
        longest = max_prompt_tokens(planned.prompts, planned.held_out)
        yield from cache_problems(config, planned.architecture, max_prompt_tokens=longest)


def _golds(planned: Planned) -> list[str]:
    from rlstack.rewards.gold_check import by_setting, gold_problems

    prompts, held_out = planned.read_prompts()
    config = planned.config
    trained = {f"data.tasks[{i}]": prompts.tasks[task.name] for i, task in enumerate(config.data.tasks)}
    return gold_problems(config, trained | by_setting(config.evaluation.tasks, "evaluation", held_out))


CHECKS = (
    Check("inputs", _inputs),
    Check("settings", _settings),
    Check("model", _model),
    Check("layout", _layout, needs=("settings", "model")),
    Check("machine", _machine),
    Check("run folder", run_folder.folder),
    Check("room", run_folder.room, needs=("model", "run folder", "settings")),
    Check("ports", run_folder.ports),
    Check("own names", _names),
    Check("rewards", user_code.rewards, waits=True),
    Check("loss in a child", user_code.loss, waits=True),
    Check("cluster", outside.cluster, waits=True),
    Check("loggers", outside.loggers, waits=True),
    Check("rows", _rows),
    # From here on everything else is known to be right, as far as it is known by then: these take long.
    Check(
        "prompts", _prompts, needs=("inputs", "settings", "model", "layout", "machine", "rows"), is_slow=True
    ),
    Check("loss", _loss, needs=("loss in a child",)),
    Check("gold answers", _golds, needs=("prompts",), is_slow=True),
)


def checks_named(*names: str) -> list[Check]:
    """Those of CHECKS, for what is no training run and needs a part of them."""
    return [check for check in CHECKS if check.name in names]
