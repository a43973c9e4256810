"""What validate.py refuses about rewards."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from rlstack.config.ranges import FRACTION, ONE_OR_MORE, POSITIVE
from rlstack.config.remote_code import remote_code
from rlstack.config.reward_names import (
    ACCEPTED,
    MATH,
    NOT_STANDARD,
    RewardKind,
    is_plugin,
    kind_of,
    used_models,
)
from rlstack.config.schedule_words import AUTO
from rlstack.config.schema import RewardEngine, RewardModel, RunConfig, Task
from rlstack.config.tasks import tasks_by_setting
from rlstack.errors import ConfigError
from rlstack.model.files import CONFIG, check_files, read_object
from rlstack.urls import is_url, refusal

NAME = re.compile(r"[\w.-]+")
MODEL_RANGES = {
    "tensor_parallel": ONE_OR_MORE,
    "num_actors": ONE_OR_MORE,
    "max_tokens": ONE_OR_MORE,
    "batch_tokens": ONE_OR_MORE,
    "gpu_memory_fraction": FRACTION,
    "start_timeout_s": POSITIVE,
    "timeout_s": POSITIVE,
}


def reward_problems(config: RunConfig) -> list[str]:
    """Rewards that tasks name and nobody defines, models that cannot work, tasks with two rewards."""
    return [*_definitions(config)] or [*_disagreements(config)]


def _definitions(config: RunConfig) -> Iterator[str]:
    workers = config.reward.workers
    if isinstance(workers, str) and workers != AUTO:
        yield f"reward.workers = {workers}: {AUTO} | a number of processes from 1 is accepted"
    names = [model.name for model in config.reward.models]
    for name, count in Counter(names).items():
        if count > 1:
            yield f"reward.models: {count} models are called {name!r}; give each a name of its own"
    for i, model in enumerate(config.reward.models):
        yield from _model_problems(f"reward.models[{i}]", model)
    for key, task in tasks_by_setting(config).items():
        yield from _task_problems(f"{key}.reward", task, names)


def missing_models(config: RunConfig) -> Iterator[str]:
    """Models whose folder is not there, or whose context is shorter than max_tokens."""
    for i, model in enumerate(config.reward.models):
        if is_url(model.path):
            yield refusal(f"reward.models[{i}].path", model.path)
            continue
        try:
            check_files(Path(model.path), setting=f"reward.models[{i}].path")
        except ConfigError as error:
            yield str(error)
            continue
        yield from remote_code(f"reward.models[{i}].path", Path(model.path))
        try:
            most = context_length(model)
        except (OSError, ValueError, KeyError, TypeError) as error:
            yield (
                f"reward.models[{i}].path = {model.path}: its config.json cannot be used ({error!r}); "
                "give the folder of a Hugging Face model"
            )
            continue
        if model.max_tokens is not None and model.max_tokens > most:
            yield (
                f"reward.models[{i}].max_tokens = {model.max_tokens}: at most the model's context of {most} "
                "tokens is accepted; lower it, or set it to null for the whole context"
            )


def context_length(model: RewardModel) -> int:
    """The positions that the model was made for, from its config.json."""
    return int(read_object(Path(model.path) / CONFIG)["max_position_embeddings"])


def num_reward_ranks(config: RunConfig) -> int:
    """Processes, or GPUs where there are any, that the models in use take."""
    return sum(model.num_actors * model.tensor_parallel for model in used_models(config))


def _model_problems(key: str, model: RewardModel) -> Iterator[str]:
    for name, accepted in MODEL_RANGES.items():
        value = getattr(model, name)
        if value is not None and value not in accepted:
            yield f"{key}.{name} = {value}: {accepted} is accepted"
    if model.name == MATH or not NAME.fullmatch(model.name):
        yield f"{key}.name = {model.name!r}: letters, digits, . _ - are accepted, and not {MATH!r}; rename it"
    if model.tensor_parallel > 1 and model.engine is RewardEngine.transformers:
        yield (
            f"{key}.tensor_parallel = {model.tensor_parallel}: 1 is accepted with engine = transformers; "
            "set engine to vllm, or num_actors for more copies"
        )


def _task_problems(key: str, task: Task, models: list[str]) -> Iterator[str]:
    kind = kind_of(task.reward)
    if kind is RewardKind.model and task.reward not in models:
        given = f"reward.models has {', '.join(models)}" if models else "reward.models is empty"
        yield f"{key} = {task.reward}: {ACCEPTED} is accepted, and {given}"
    if kind is RewardKind.plugin and not is_plugin(task.reward):
        yield (
            f"{key} = {task.reward}: {ACCEPTED} is accepted, {NOT_STANDARD}; name a plug-in like "
            "my_rewards:brevity"
        )


def _disagreements(config: RunConfig) -> Iterator[str]:
    """A task's name tells which reward its rows get, in training and in evaluation alike."""
    of_training = {task.name: task.reward for task in config.data.tasks}
    for i, task in enumerate(config.evaluation.tasks):
        other = of_training.get(task.name, task.reward)
        if other != task.reward:
            yield (
                f"evaluation.tasks[{i}].reward = {task.reward}: {other} is accepted, the reward of the task "
                f"{task.name!r} in data.tasks; give one of them another name"
            )
