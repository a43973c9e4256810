"""What `rlstack evaluate` evaluates, and with which settings: from its arguments to a RunConfig."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlstack.config.load import load_config
from rlstack.config.references import escaped
from rlstack.config.schema import RunConfig
from rlstack.config.values import read_value, type_at
from rlstack.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A model, and the settings file that belongs to it if there is one."""

    name: str  # of the model in what is written for other tools
    config: Path | None
    model: Path | None  # None: policy.model of `config`
    version: int | None  # optimiser steps, of a run's model
    out: Path


def find_target(path: Path) -> Target:
    """What `path` is: a run's folder, a Hugging Face folder or a settings file.

    Raises ConfigError if it is none of them, or a run that has not saved its model.
    """
    if path.is_file():
        return Target(name=path.stem, config=path, model=None, version=None, out=_out(path.stem))
    if (path / "config.yaml").is_file():
        return _run(path)
    if (path / "config.json").is_file():
        of_run = path.name == "model" and (path.parent / "config.yaml").is_file()
        name = (path.resolve().parent if of_run else path.resolve()).name
        return Target(name=name, config=None, model=path, version=None, out=_out(name))
    raise ConfigError(
        f"{path}: is nothing to evaluate; give the folder of a run, a Hugging Face folder, or a YAML file"
    )


def _run(path: Path) -> Target:
    if not (path / "model" / "config.json").is_file():
        raise ConfigError(
            f"{path}: the run has not saved its model in {path / 'model'}; give a run that has ended, or a "
            "Hugging Face folder"
        )
    name = path.resolve().name
    version = _steps(path / "summary.json")
    return Target(
        name=name,
        config=path / "config.yaml",
        model=path / "model",
        version=version,
        out=path / "evaluation",
    )


def _steps(summary: Path) -> int | None:
    try:
        return int(json.loads(summary.read_text(encoding="utf-8"))["steps"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _out(name: str) -> Path:
    return Path("runs") / f"{name}-evaluation"


def evaluation_config(
    target: Target, *, tasks: Sequence[str], settings: Mapping[str, Any], overrides: Sequence[str]
) -> RunConfig:
    """The settings of the evaluation: those of the target, with the command's own over them.

    Args:
        tasks: NAME=PATH[,SETTING=VALUE...] each, instead of the target's `evaluation.tasks`.
        settings: by their path; None for those that the command leaves as they are.
        overrides: "section.key=value" each, over all others.
    """
    ours = {key: value for key, value in settings.items() if value is not None} | {"data.tasks": []}
    # The version that an evaluation is of does not train; what only training needs must not refuse it.
    ours |= {"schedule.evaluate_every": None}
    if target.model is not None:
        ours["policy.model"] = escaped(str(target.model))
    if tasks:
        ours["evaluation.tasks"] = [parse_task(task) for task in tasks]
    # JSON is YAML, but for the escapes of what is beyond 16 bits.
    written = [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in ours.items()]
    return load_config(target.config, ["evaluation.num_prompts=null", *written, *overrides])


def parse_task(text: str) -> dict[str, Any]:
    """The task that NAME=PATH[,SETTING=VALUE...] stands for, its settings those of an evaluation task.

    Raises ConfigError for a text without a name or a path, or with a value that is not YAML where the setting
    is not a text.
    """
    name, equals, rest = text.partition("=")
    path, *settings = re.split(r",(?=\w+=)", rest)
    if not (name and equals and path):
        raise ConfigError(
            f"--task {text}: NAME=PATH is accepted, for example math500=math500.jsonl, or "
            "notes=notes.jsonl,template=chat,reward=my_rewards:brevity"
        )
    return {"name": name, "path": path} | dict(map(_task_setting, settings))


def _task_setting(text: str) -> tuple[str, Any]:
    key, _, value = text.partition("=")
    hint = type_at(("evaluation", "tasks", "0", key))
    try:
        return key, json.loads(json.dumps(read_value(value, hint)))
    except Exception:  # what PyYAML lets through, and what JSON has not
        raise ConfigError(f"--task ...,{text}: the value is not valid YAML; put it in quotes") from None
