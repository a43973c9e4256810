"""What `rlstack evaluate` evaluates, and with which settings: from its arguments to a RunConfig.

A settings file is the operator's, and counts whole. A run's folder may be anybody's, as a model's: of its
config.yaml only what cannot do harm is taken, unless the operator trusts all of it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import reduce
from pathlib import Path
from typing import Any

from rlstack.config.load import load_config, load_stored, plain
from rlstack.config.references import escaped
from rlstack.config.reward_names import MATH
from rlstack.config.schema import RunConfig
from rlstack.config.values import read_value, type_at
from rlstack.errors import ConfigError
from rlstack.telemetry.run_links import refuse_links

EVALUATION = "evaluation"  # the folder in a run's
# Taken of a run's settings: numbers and words by which answers are sampled and counted, and the tasks.
TASKS = "evaluation.tasks"
TAKEN = (
    "run.seed",
    "run.deterministic",
    "policy.precision",
    "rollout.engines",
    "rollout.tensor_parallel",
    "rollout.precision",
    "rollout.fp8_scaling",
    "rollout.fp32_head",
    "rollout.max_new_tokens",
    "rollout.max_num_seqs",
    "rollout.kv_cache_gib",
    "rollout.gpu_memory_fraction",
    "rollout.start_timeout_s",
    "rollout.generate_timeout_s",
    "reward.timeout_s",
    "data.max_unverifiable",
    "evaluation.n",
    "evaluation.temperature",
    "evaluation.top_p",
    TASKS,
)
# What would change the evaluation besides, and can run code, load models or call at addresses.
REFUSED = ("cluster.address", "cluster.env")
SYSTEM = ("/proc", "/sys", "/dev")  # whose files are no data


class TargetKind(StrEnum):
    run = "a run's folder"
    model = "a model's folder"
    settings = "a settings file"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A model, and the settings file that belongs to it if there is one."""

    path: Path  # as it was given
    kind: TargetKind
    name: str  # of the model in what is written for other tools
    config: Path | None  # None: of a model's folder
    model: Path | None  # None: policy.model of `config`
    version: int | None  # optimiser steps, of a run's model
    out: Path
    trusted: bool = False  # whether all settings of a run's folder count

    @property
    def told(self) -> str:
        """For the terminal: for which of the three the target was taken, and what that means."""
        if self.kind is TargetKind.settings or self.trusted:
            what = "all of its settings count"
        elif self.kind is TargetKind.model:
            what = "no settings are read from it"
        else:
            what = "of its settings only the tasks, and how answers are sampled and counted, are read"
        return f"{self.path}: taken for {self.kind}; {what}"


def find_target(path: Path, *, trust_settings: bool = False) -> Target:
    """The run's folder, Hugging Face folder or settings file at `path`.

    A folder with a config.json is a model's, whatever else is in it.

    Raises ConfigError if it is none of them, or a run that has not saved its model.
    """
    if path.is_file():
        kind, name = TargetKind.settings, path.stem
        return Target(path=path, kind=kind, name=name, config=path, model=None, version=None, out=_out(name))
    if (path / "config.json").is_file():
        of_run = path.name == "model" and (path.parent / "config.yaml").is_file()
        name = (path.resolve().parent if of_run else path.resolve()).name
        kind = TargetKind.model
        return Target(path=path, kind=kind, name=name, config=None, model=path, version=None, out=_out(name))
    if (path / "config.yaml").is_file():
        return _run(path, trusted=trust_settings)
    raise ConfigError(
        f"{path}: is nothing to evaluate; give the folder of a run, a Hugging Face folder, or a YAML file"
    )


def _run(path: Path, *, trusted: bool) -> Target:
    refuse_links(path.resolve())
    if not (path / "model" / "config.json").is_file():
        raise ConfigError(
            f"{path}: the run has not saved its model in {path / 'model'}; give a run that has ended, or a "
            "Hugging Face folder"
        )
    return Target(
        path=path,
        kind=TargetKind.run,
        name=path.resolve().name,
        config=path / "config.yaml",
        model=path / "model",
        version=_steps(path / "summary.json"),
        out=path / EVALUATION,
        trusted=trusted,
    )


def _steps(summary: Path) -> int | None:
    try:
        return int(json.loads(summary.read_text(encoding="utf-8"))["steps"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
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

    Raises:
        ConfigError: a setting is wrong, or one of a run's folder is none of those that are taken from there.
    """
    # The version that an evaluation is of does not train; what only training needs must not refuse it.
    ours: dict[str, Any] = {"evaluation.num_prompts": None, "data.tasks": [], "schedule.evaluate_every": None}
    ours |= {key: value for key, value in settings.items() if value is not None}
    if target.model is not None:
        ours["policy.model"] = escaped(str(target.model))
    if tasks:
        ours[TASKS] = [parse_task(task) for task in tasks]
    if target.kind is not TargetKind.run or target.trusted:
        return load_config(target.config, [*_written(ours), *overrides])
    assert target.config is not None, "a run has one"
    stored = load_stored(target.config, _written({"policy.model": ours["policy.model"]}))
    named = {override.partition("=")[0] for override in overrides} | ours.keys()
    if found := [problem for setting, problem in _untrusted(stored) if not _is_given(setting, named)]:
        raise ConfigError("\n".join(f"{target.config}: {problem}" for problem in found))
    taken = {path: escaped(plain(_at(stored, path))) for path in TAKEN}
    return load_config(None, [*_written(taken | ours), *overrides])


def _written(settings: Mapping[str, Any]) -> list[str]:
    """As on the command line: JSON is YAML, but for the escapes of what is beyond 16 bits."""
    return [f"{key}={json.dumps(value, ensure_ascii=False, default=str)}" for key, value in settings.items()]


def _untrusted(stored: RunConfig) -> Iterator[tuple[str, str]]:
    """The settings of a run's folder that are not taken from there and would matter, and what to say."""
    remedy = "repeat it on the command line, as {}=VALUE, or give --trust-settings if you have read that file"
    for i, task in enumerate(stored.evaluation.tasks):
        key = f"{TASKS}[{i}]"
        if task.reward != MATH:
            yield (
                f"{key}.reward",
                f"{key}.reward = {task.reward}: {MATH} is accepted from the folder of a run, for another one "
                f"runs code or loads a model; {remedy.format(f'{key}.reward')}",
            )
        if not _is_data(Path(task.path)):
            yield (
                f"{key}.path",
                f"{key}.path = {task.path}: a file or a folder with data is accepted from the folder of a "
                f"run; {remedy.format(f'{key}.path')}",
            )
    for path in REFUSED:
        if value := _at(stored, path):
            yield (
                path,
                f"{path} = {value}: no address and no environment is accepted from the folder of a run; "
                f"{remedy.format(path)}",
            )


def _is_given(setting: str, named: set[str]) -> bool:
    """If the command line has the setting itself, or a section or an entry of it."""
    names = re.findall(r"\w+", setting)
    given = [re.findall(r"\w+", each) for each in named]
    return any(names[: len(each)] == each or each[: len(names)] == names for each in given)


def _is_data(path: Path) -> bool:
    """If it may be a dataset; what is not there is refused with all other settings."""
    there = os.path.realpath(path)
    return not any(Path(there).is_relative_to(folder) for folder in SYSTEM)


def _at(config: RunConfig, path: str) -> Any:
    return reduce(getattr, path.split("."), config)


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
