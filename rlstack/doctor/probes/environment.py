"""Variables that change what a run does. Of those that may hold a secret only the name is kept."""

from __future__ import annotations

import os
from collections.abc import Mapping

from rlstack.config.vllm_environment import vllm_environment
from rlstack.doctor.facts import Environment

PROXIES = ("http_proxy", "https_proxy", "all_proxy")


def look(variables: Mapping[str, str] = os.environ) -> Environment:
    """The variables that count; of those that may hold secrets only the names."""
    plugins = variables.get("VLLM_PLUGINS")
    own = {"VLLM_PLUGINS", *vllm_environment(cuda=False)}  # which every role sets itself
    return Environment(
        visible_gpus=variables.get("CUDA_VISIBLE_DEVICES"),
        threads=variables.get("OMP_NUM_THREADS"),
        has_ray_address=bool(variables.get("RAY_ADDRESS")),
        proxies=tuple(sorted(name for name in variables if name.lower() in PROXIES and variables[name])),
        no_proxy=_entries(variables.get("no_proxy") or variables.get("NO_PROXY") or ""),
        vllm_plugins=None if plugins is None else _entries(plugins),
        vllm=tuple(sorted(name for name in variables if name.startswith("VLLM_") and name not in own)),
    )


def _entries(text: str) -> tuple[str, ...]:
    return tuple(entry.strip() for entry in text.split(",") if entry.strip())
