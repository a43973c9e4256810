"""What a task's `reward` may say: math, the name of one of reward.models, or a plug-in."""

from __future__ import annotations

import re
from enum import StrEnum

from rlstack.config.schema import RewardModel, RunConfig
from rlstack.config.tasks import tasks_by_setting

MATH = "math"
PLUGIN = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")  # package.module:attribute
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


def needs_answer(reward: str) -> bool:
    """Whether every row of a task with this reward must have an `answer` to compare with."""
    return kind_of(reward) is RewardKind.math


def used_models(config: RunConfig) -> list[RewardModel]:
    """Those of reward.models that a task names, in the order in which they are given."""
    named = {task.reward for task in tasks_by_setting(config).values()}
    return [model for model in config.reward.models if model.name in named]
