"""Which answers an evaluation's folder holds, so that others are not mixed with them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rlstack.config.precision import engine_precision, rollout_precision
from rlstack.config.schema import RunConfig
from rlstack.errors import ConfigError
from rlstack.telemetry.run_dir import write_json


def identity(config: RunConfig) -> dict[str, Any]:
    """What the answers depend on, but for the prompts, which each line of answers.jsonl has itself."""
    folder = Path(config.policy.model)
    stats = {path.name: path.stat() for path in sorted(folder.glob("*.safetensors"))}
    return {
        "model": config.policy.model,
        "weights": {name: f"{stat.st_size} bytes of {stat.st_mtime_ns}" for name, stat in stats.items()},
        "precision": _precision(config),
        **sampling_settings(config),
        "tasks": {
            task.name: {
                "template": task.template.value,
                "reward": task.reward,
                "chat_template_kwargs": task.chat_template_kwargs or None,
            }
            for task in config.evaluation.tasks
        },
    }


def _precision(config: RunConfig) -> str:
    """Of the engines, with the head's where it is another one."""
    precision = engine_precision(config)
    name = precision.quantization or rollout_precision(config).value
    return name if precision.head_dtype == precision.dtype else f"{name}, head in {precision.head_dtype}"


def sampling_settings(config: RunConfig) -> dict[str, Any]:
    """How answers are sampled, by the names that evaluation.json and settings.json have for it."""
    return {
        "n": config.evaluation.n,
        "temperature": config.evaluation.temperature,
        "top_p": config.evaluation.top_p,
        "max_new_tokens": config.rollout.max_new_tokens,
        "seed": config.run.seed,
    }


def hold_to(path: Path, ours: Mapping[str, Any]) -> None:
    """Write `ours` to `path`, with the tasks that are there already.

    Raises ConfigError if the file that is there has other values, or is no such file: its answers are not of
    this evaluation.
    """
    if path.exists():
        try:
            there = json.loads(path.read_text(encoding="utf-8"))
            found = list(differences(there, ours))
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise ConfigError(f"{path}: is not of an evaluation ({error!r}); give another --out") from None
        if found:
            raise ConfigError(
                "\n".join(f"{path.parent} holds answers with {what}; give another --out" for what in found)
            )
        ours = {**ours, "tasks": there["tasks"] | ours["tasks"]}
    write_json(path, ours)


def differences(there: Mapping[str, Any], ours: Mapping[str, Any]) -> Iterator[str]:
    """One text for each value in which they differ, tasks that only one of them has left aside. Pure."""
    for name, value in ours.items():
        if name == "tasks":
            for task in value.keys() & there["tasks"].keys():
                yield from differences({"tasks": {}, **there["tasks"][task]}, value[task])
        elif there.get(name) != value:
            yield f"{name} = {there.get(name)}, not {value}"
