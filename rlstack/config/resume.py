"""Which settings may differ between a run and the one that takes it up. Pure.

Those that change where and how fast something is computed, how long is waited for it, or when the run ends.
All others change what is sampled or trained: with another value it would not be the same run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from fnmatch import fnmatchcase
from typing import Any

from rlstack.config.schema import RunConfig

# What the paths among the settings lead to: by setting, digests by the names of the files.
Contents = Mapping[str, Mapping[str, str]]

# Paths of settings; * stands for anything.
MAY_DIFFER = (
    "run.name",  # of a folder that was renamed
    "run.dir",
    "schedule.num_steps",
    "schedule.save_every",
    "data.max_unverifiable",
    "policy.*_parallel",
    "policy.virtual_pipeline",
    "policy.pipeline_layers*",
    "policy.recompute*",
    "policy.fusions",
    "policy.optimizer_offload",
    "policy.overlap_*",
    "policy.logprob_*",
    "policy.micro_batch_tokens",
    "*timeout_s",
    "optimizer.max_skipped_steps",
    "rollout.engines",
    "rollout.tensor_parallel",
    "rollout.max_num_seqs",
    "rollout.overlap",
    "rollout.max_steps_ahead",
    "rollout.max_ahead_gib",
    "rollout.kv_cache_gib",
    "rollout.gpu_memory_fraction",
    "reward.workers",
    "reward.models?*?.engine",
    "reward.models?*?.tensor_parallel",
    "reward.models?*?.num_actors",
    "reward.models?*?.batch_tokens",
    "reward.models?*?.gpu_memory_fraction",
    "transfer.*",
    "alarms.*",
    "checkpoint.*",
    "recovery.*",
    "cluster.*",
    "telemetry.*",
)


def resume_problems(
    before: RunConfig, now: RunConfig, *, had: Contents | None = None, has: Contents | None = None
) -> list[str]:
    """The settings of `now` with which a run of the settings `before` cannot go on; one line each.

    had, has: what their paths lead to. A path of which both tell may be another one, with the same files.
    """
    had, has = had or {}, has or {}
    known = had.keys() & has.keys()
    old, new = dict(_flat(asdict(before))), dict(_flat(asdict(now)))
    changed = [key for key in {**old, **new} if old.get(key, "") != new.get(key, "")]
    problems = [
        f"{key} = {new.get(key, 'not given')}: {old.get(key, 'not given')} is accepted with --resume, as in "
        "the run that goes on; set it back, or give another run.name to start afresh"
        for key in changed
        if key not in known and not any(fnmatchcase(key, pattern) for pattern in MAY_DIFFER)
    ]
    return problems + [
        f"{key} = {new.get(key, 'not given')}: {_difference(had[key], has[key])}; the same files are "
        "accepted with --resume, wherever they are: put them back, or give another run.name to start afresh"
        for key in sorted(known)
        if had[key] != has[key]
    ]


def _difference(had: Mapping[str, str], has: Mapping[str, str]) -> str:
    """In which files two inputs differ, in words."""
    words = {
        "has changed": [name for name in sorted(had) if name in has and had[name] != has[name]],
        "is missing": sorted(had.keys() - has.keys()),
        "is new": sorted(has.keys() - had.keys()),
    }
    told = [f"{name} {what}" for what, names in words.items() for name in names]
    return ", ".join([*told[:3], *([f"and {len(told) - 3} more"] if len(told) > 3 else [])])


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Each setting under its path, as JSON."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flat(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for i, item in enumerate(value):
            yield from _flat(item, f"{path}[{i}]")
    else:
        yield path, json.dumps(value, ensure_ascii=False)
