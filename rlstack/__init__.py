"""Post-training of language models: offline, semi-online and online RL in one loop.

The names below are the stable ones, to run and compose from Python; docs/python-api.md shows how. Each is
imported from its own module when it is first asked for, so that `import rlstack` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlstack.config.load import load_config
    from rlstack.config.schema import RunConfig
    from rlstack.credit.assign import assign
    from rlstack.data.records import Prompt, Rollout, RolloutGroup, Score, ScoredGroup
    from rlstack.errors import ConfigError
    from rlstack.losses.build import Loss
    from rlstack.losses.sequences import entropy_mean, rollout_sums
    from rlstack.losses.terms import dpo_margins
    from rlstack.losses.types import LossInputs, LossOutput, Ratio
    from rlstack.running import run
    from rlstack.session import Session
    from rlstack.telemetry.run_record import RunRecord, read_record

__all__ = [
    "ConfigError",
    "Loss",
    "LossInputs",
    "LossOutput",
    "Prompt",
    "Ratio",
    "Rollout",
    "RolloutGroup",
    "RunConfig",
    "RunRecord",
    "Score",
    "ScoredGroup",
    "Session",
    "assign",
    "dpo_margins",
    "entropy_mean",
    "load_config",
    "read_record",
    "rollout_sums",
    "run",
]

_MODULES = {
    "rlstack.config.load": ("load_config",),
    "rlstack.config.schema": ("RunConfig",),
    "rlstack.credit.assign": ("assign",),
    "rlstack.data.records": ("Prompt", "Rollout", "RolloutGroup", "Score", "ScoredGroup"),
    "rlstack.errors": ("ConfigError",),
    "rlstack.losses.build": ("Loss",),
    "rlstack.losses.sequences": ("entropy_mean", "rollout_sums"),
    "rlstack.losses.terms": ("dpo_margins",),
    "rlstack.losses.types": ("LossInputs", "LossOutput", "Ratio"),
    "rlstack.running": ("run",),
    "rlstack.session": ("Session",),
    "rlstack.telemetry.run_record": ("RunRecord", "read_record"),
}


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(module), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
