"""Code of the user's own, which settings can only name: "package.module:attribute".

The name is what config.yaml has. What stands for it is imported, or was given to `rlstack.run` in Python;
what cannot be imported under its name then (it stands in a notebook, is a lambda or an object with a state)
is called `__main__:NAME`, so that such a run goes on only from the same Python.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from functools import reduce
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

from rlstack.config.reward_names import is_plugin, is_standard
from rlstack.config.schema import RunConfig
from rlstack.config.tasks import tasks_by_setting
from rlstack.errors import ConfigError

MAIN = "__main__"
# What tells its module; an object that is called, such as functools.partial(...), has that of its class.
_CODE = (type, FunctionType, BuiltinFunctionType, MethodType)


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnCode:
    """What was given in Python, and goes to the processes that call it."""

    rewards: Mapping[str, Any] = field(default_factory=dict)  # by what a task's `reward` says
    loss: Any = None  # what objective.loss stands for


def with_own_code(
    config: RunConfig, *, rewards: Mapping[str, Any] | None = None, loss: Any = None
) -> tuple[RunConfig, OwnCode]:
    """`config` with the names of what is given, which replaces what it said; and what the names stand for.

    Args:
        rewards: by the name of a task, of training or evaluation or both.
        loss: a losses.build.Loss.

    Raises:
        ConfigError: there is no task of such a name.
    """
    config = deepcopy(config)
    given: dict[str, Any] = {}
    tasks = [*config.data.tasks, *config.evaluation.tasks]
    for task_name, reward in (rewards or {}).items():
        called = [task for task in tasks if task.name == task_name]
        if not called:
            names = ", ".join(sorted({task.name for task in tasks}))
            raise ConfigError(f"rewards[{task_name!r}]: the name of a task is accepted, one of {names}")
        name = _new_name(name_of(reward), reward, given)
        given[name] = reward
        for task in called:
            task.reward = name
    if loss is not None:
        config.objective.loss = name_of(loss)
    return config, OwnCode(rewards=given, loss=loss)


def name_of(value: Any) -> str:
    """The name under which `value` can be imported, or else one in MAIN."""
    named = value if hasattr(value, "__qualname__") else type(value)
    name = f"{named.__module__}:{named.__qualname__}"
    if is_plugin(name) and named.__module__ != MAIN:
        try:
            if load_named(name) is value:
                return name
        except (ImportError, AttributeError):
            pass
    return f"{MAIN}:{named.__qualname__.rpartition('.')[2].strip('<>')}"


def load_named(name: str) -> Any:
    """What `name`, "package.module:attribute", stands for.

    Raises whatever importing it raises, AttributeError if the module has no such attribute, ImportError if it
    is of Python's standard library, under whatever name.
    """
    module, _, attribute = name.partition(":")
    if is_standard(module):
        raise ImportError(f"{module} is of Python's standard library, which has no rewards and no losses")
    if module == MAIN and not hasattr(sys.modules[MAIN], attribute.partition(".")[0]):
        raise AttributeError(
            f"{attribute} was given in Python; go on from there: rlstack.run(..., resume=True)"
        )
    return reduce(_attribute, attribute.split("."), importlib.import_module(module))


def _attribute(of: Any, name: str) -> Any:
    found = getattr(of, name)
    if isinstance(found, ModuleType) or (isinstance(found, _CODE) and is_standard(found.__module__ or "")):
        raise ImportError(
            f"{name} is {found!r}; name what a module of your own defines, package.module:attribute"
        )
    return found


def refuse_unknown_names(config: RunConfig, own: OwnCode) -> None:
    """Raise ConfigError for a reward in MAIN that was not given."""
    for key, task in tasks_by_setting(config).items():
        if task.reward.startswith(f"{MAIN}:") and task.reward not in own.rewards:
            raise ConfigError(
                f"{key}.reward = {task.reward}: this reward was given in Python; run it from there again, "
                "with rlstack.run(..., rewards=...), or name a function that can be imported"
            )


def _new_name(name: str, value: Any, given: Mapping[str, Any]) -> str:
    """`name`, or with a number behind it if it stands for something else already."""
    number, free = 1, name
    while given.get(free, value) is not value:
        number += 1
        free = f"{name}_{number}"
    return free
