"""What a tuning is asked to do, checked before anything starts."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rlstack.config.load import load_config
from rlstack.config.machine import Machine
from rlstack.config.own_code import OwnCode
from rlstack.config.parallel import num_policy_ranks
from rlstack.config.schedule_words import AUTO
from rlstack.config.schema import RunConfig
from rlstack.config.validate import validate
from rlstack.config.validate_rewards import num_reward_ranks
from rlstack.errors import ConfigError
from rlstack.model.architecture import Architecture
from rlstack.preflight.checks import checks_named
from rlstack.preflight.planned import Planned
from rlstack.preflight.runner import refuse
from rlstack.tuning.interval.halving import Plan
from rlstack.tuning.interval.intervals import ONLINE, Interval, choose

MOST_STEPS = 120  # of a trial, where --steps does not say


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    name: str  # of the configuration's file
    config: RunConfig  # what all trials share
    plan: Plan
    accelerator: str  # what plan.accelerators counts: "GPUs" or "cores"
    out: Path
    calibrate: bool
    budget_s: float | None  # None: as long as it takes


def make_request(
    path: Path,
    overrides: Sequence[str],
    *,
    intervals: str | None,
    steps: int | None,
    seeds: int,
    margin: float,
    confidence: float,
    out: Path | None,
    calibrate: bool,
    budget_minutes: float | None,
) -> Request:
    """Raises ConfigError for whatever one of the trials could not work with, all of it at once."""
    config = load_config(path, overrides)
    if config.schedule.sync_interval == AUTO:
        raise ConfigError(
            "schedule.sync_interval = auto: an integer or null is accepted, for each trial holds its "
            "interval; add schedule.sync_interval=1, and give what comes out as schedule.adaptive.start"
        )
    num_steps = min(config.schedule.num_steps, MOST_STEPS) if steps is None else steps
    chosen = choose(intervals, num_steps=num_steps, lag=config.schedule.lag)
    out = out or Path(config.run.dir) / f"{config.run.name}-tune"
    machine = Machine.detect()
    architecture = Architecture.from_folder(Path(config.policy.model))
    for interval in chosen:
        validate(shared(config, num_steps, interval), architecture=architecture, machine=machine)
    refuse(
        Planned(config=config, own=OwnCode()), checks_named("rewards", "loss in a child", "cluster", "rows")
    )
    accelerators, accelerator = _held(config, machine)
    return Request(
        name=path.name,
        config=shared(config, num_steps, ONLINE),
        plan=Plan(
            intervals=chosen,
            seeds=tuple(range(config.run.seed, config.run.seed + seeds)),
            num_steps=num_steps,
            lag=config.schedule.lag,
            margin=margin,
            confidence=confidence,
            accelerators=accelerators,
        ),
        accelerator=accelerator,
        out=out.expanduser().absolute(),
        calibrate=calibrate,
        budget_s=None if budget_minutes is None else budget_minutes * 60,
    )


def shared(config: RunConfig, num_steps: int, interval: Interval) -> RunConfig:
    """The settings of trials, but for their names, folders and seeds: no evaluation or save between steps.

    Nor a logger: a tuning's own report compares its trials.
    """
    run = dataclasses.replace(config.run, name="trial", dir="runs")
    schedule = dataclasses.replace(
        config.schedule, num_steps=num_steps, sync_interval=interval, evaluate_every=None, save_every=None
    )
    telemetry = dataclasses.replace(config.telemetry, tensorboard=False, wandb=None, mlflow=None)
    return dataclasses.replace(config, run=run, schedule=schedule, telemetry=telemetry)


def _held(config: RunConfig, machine: Machine) -> tuple[int, str]:
    """How many accelerators a run holds; a machine without a GPU is held with all its cores."""
    rollout = config.rollout
    if config.cluster.address is None and machine.num_gpus == 0:
        return machine.num_cores, "cores"
    ranks = num_policy_ranks(config.policy)
    return ranks + rollout.engines * rollout.tensor_parallel + num_reward_ranks(config), "GPUs"
