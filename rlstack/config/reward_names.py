"""What a task's `reward` may say: math, the name of one of reward.models, or a plug-in."""

from __future__ import annotations

import os
import re
import sys
from enum import StrEnum

from rlstack.config.schedule_words import AUTO
from rlstack.config.schema import Reward, RewardModel, RunConfig
from rlstack.config.tasks import tasks_by_setting

MATH = "math"
_NAME = r"[^\W\d]\w*(\.[^\W\d]\w*)*"
_PLUGIN = re.compile(f"{_NAME}:{_NAME}")  # package.module:attribute
NOT_STANDARD = "of a module that is not Python's own"
ACCEPTED = "math | the name of one of reward.models | package.module:attribute"


class RewardKind(StrEnum):
    math = "math"
    model = "model"
    plugin = "plugin"


def kind_of(reward: str) -> RewardKind:
    """The kind that the name belongs to by its form; whether there is such a model is not asked."""
    if reward == MATH:
        return RewardKind.math
    return RewardKind.plugin if ":" in reward else RewardKind.model


def verifier_workers(settings: Reward) -> int:
    """Processes of the math verifier; auto: as many as there are cores that this process may use."""
    return len(os.sched_getaffinity(0)) if settings.workers == AUTO else int(settings.workers)


def plugin_workers(settings: Reward) -> int:
    """Processes of each plug-in; auto: one, since the user's own code may take any memory, or a lock."""
    return 1 if settings.workers == AUTO else int(settings.workers)


def is_plugin(name: str) -> bool:
    """True if `name` is package.module:attribute, in a module that is not Python's own.

    Nothing in the standard library is a reward or a loss, and much of it runs what it is called with.
    """
    return _PLUGIN.fullmatch(name) is not None and not is_standard(name.partition(":")[0])


def is_standard(module: str) -> bool:
    """True if the module, or a package that it is in, is one of Python's standard library."""
    return module.partition(".")[0] in {*sys.stdlib_module_names, *sys.builtin_module_names}


def needs_answer(reward: str) -> bool:
    """Whether every row of a task with this reward must have an `answer` to compare with."""
    return kind_of(reward) is RewardKind.math


def used_models(config: RunConfig) -> list[RewardModel]:
    """Those of reward.models that a task names, in the order in which they are given."""
    named = {task.reward for task in tasks_by_setting(config).values()}
    return [model for model in config.reward.models if model.name in named]
