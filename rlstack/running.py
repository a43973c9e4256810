"""A run from settings: what cannot work is refused before any process starts, then it is trained."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlstack.config.mistakes import refuse_wrong_types
from rlstack.config.own_code import OwnCode, with_own_code
from rlstack.config.schema import RunConfig
from rlstack.config.threads import unbind_threads
from rlstack.files import compile_privately
from rlstack.preflight.checks import CHECKS
from rlstack.preflight.planned import Planned
from rlstack.preflight.runner import refuse
from rlstack.telemetry.console import Console
from rlstack.telemetry.run_dir import folder_of, num_steps_completed

if TYPE_CHECKING:
    from rlstack.losses.build import Loss


def run(
    config: RunConfig,
    *,
    resume: bool = False,
    rewards: Mapping[str, Any] | None = None,
    loss: Loss | type[Loss] | None = None,
) -> Path:
    """Train as `config` says, which stays as it is; the folder with all that the run leaves.

    Args:
        config: from rlstack.load_config.
        resume: go on from the newest checkpoint of the run in that folder; a run that has done all its steps
            stays as it is.
        rewards: in place of what the tasks of these names say: functions or classes as for a plug-in, see
            rlstack/rewards/plugin.py. They are called in processes of their own.
        loss: in place of the objective's formula; see rlstack/losses/own.py. It is called on the policy's
            ranks.

    Raises:
        ConfigError: the settings, the data or the run to resume cannot be used, or `rewards` or `loss`.
        StoppedByAlarm, RoleError: see rlstack.train.train.
    """
    planned = prepare(config, rewards=rewards, loss=loss, resume=resume)
    folder = folder_of(planned.config)
    if resume and (num_steps := num_steps_completed(folder)) >= planned.config.schedule.num_steps:
        Console(num_steps).note(f"{folder}: has completed its {num_steps} steps; nothing is left to do")
        return folder

    from rlstack.train import train  # imports torch and Ray: after all that can be refused

    train(planned.config, resume=resume, own=planned.own, prompts=planned.read_prompts())
    return folder


def check(
    config: RunConfig,
    *,
    rewards: Mapping[str, Any] | None = None,
    loss: Loss | type[Loss] | None = None,
) -> tuple[RunConfig, OwnCode]:
    """`config` with the names of what is given; what they stand for. Arguments as of run().

    Raises ConfigError for whatever can be refused before a process starts, all of it at once.
    """
    planned = prepare(config, rewards=rewards, loss=loss)
    return planned.config, planned.own


def prepare(
    config: RunConfig,
    *,
    rewards: Mapping[str, Any] | None = None,
    loss: Loss | type[Loss] | None = None,
    resume: bool = False,
) -> Planned:
    """The run that would start, with its prompts; arguments as of run(), errors as of check()."""
    unbind_threads(os.environ)
    compile_privately()
    refuse_wrong_types(config)
    config, own = with_own_code(config, rewards=rewards, loss=loss)
    planned = Planned(config=config, own=own, resume=resume)
    refuse(planned, CHECKS)
    return planned
