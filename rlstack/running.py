"""A run from settings: what cannot work is refused before any process starts, then it is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlstack.config.machine import Machine
from rlstack.config.own_code import OwnCode, refuse_unknown_names, with_own_code
from rlstack.config.schema import RunConfig
from rlstack.config.validate import validate
from rlstack.losses.own import load_loss
from rlstack.policy.architecture import Architecture
from rlstack.policy.weight_index import weight_files
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
    config, own = check(config, rewards=rewards, loss=loss)
    folder = folder_of(config)
    if resume and (num_steps := num_steps_completed(folder)) >= config.schedule.num_steps:
        Console(num_steps).note(f"{folder}: has completed its {num_steps} steps; nothing is left to do")
        return folder

    from rlstack.train import train  # imports torch and Ray: after all that can be refused

    train(config, resume=resume, own=own)
    return folder


def check(
    config: RunConfig,
    *,
    rewards: Mapping[str, Any] | None = None,
    loss: Loss | type[Loss] | None = None,
) -> tuple[RunConfig, OwnCode]:
    """`config` with the names of what is given; what they stand for. Arguments as of run().

    Raises ConfigError for whatever can be refused before a process starts.
    """
    config, own = with_own_code(config, rewards=rewards, loss=loss)
    architecture = Architecture.from_folder(Path(config.policy.model))
    validate(config, architecture=architecture, machine=Machine.detect())
    weight_files(Path(config.policy.model))  # for what it refuses
    refuse_unknown_names(config, own)
    if config.objective.loss is not None:
        own = replace(own, loss=load_loss(config.objective.loss, own.loss))
    return config, own
