"""The settings of the alarms; the schema has them as its section `alarms`."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class AlarmAction(StrEnum):
    warn = "warn"  # a line on the terminal and a row in alarms.jsonl, as with every action
    lower_lr = "lower_lr"  # the learning rate of all steps to come is multiplied by lr_factor
    stop = "stop"  # the model is saved and the run ends, with exit status 1


@dataclass(slots=True)
class Alarm:
    action: AlarmAction | None = AlarmAction.warn  # null = off
    window: int = 20  # steps that a mean is over, and that the alarm is silent for once raised
    lr_factor: float = 0.5  # of lower_lr


@dataclass(slots=True)
class LengthCollapse(Alarm):
    fraction: float = 0.5  # of the first window's mean length: raised below it


@dataclass(slots=True)
class EntropyCollapse(Alarm):
    fraction: float = 0.1  # of the first window's mean entropy of the policy: raised below it
    floor: float | None = None  # nats per token: raised below it too


@dataclass(slots=True)
class Divergence(Alarm):
    reward_drop: float | None = 0.3  # in the reward's unit: raised this far below the best window's mean
    max_grad_norm: float | None = None  # before clipping
    max_mismatch: float | None = 0.1  # nats per token: generator against trainer, same version
    max_drift: float | None = None  # nats per token: generator against the current policy


@dataclass(slots=True)
class NoSignal(Alarm):
    """Steps in which no prompt's rewards differ, or no gradient comes of it."""

    action: AlarmAction | None = AlarmAction.stop  # null = off
    window: int = 20  # such steps in a row, and steps that the alarm is silent for once raised
    min_prompts: int = 64  # that they hold too, unless every reward of the run has been the same


@dataclass(slots=True)
class RewardErrors(Alarm):
    action: AlarmAction | None = AlarmAction.stop  # null = off
    window: int = 10  # steps that a mean is over, and that the alarm is silent for once raised
    max_share: float = 0.5  # of the rollouts: raised when more than this have no reward


@dataclass(slots=True)
class CutOffAnswers(Alarm):
    window: int = 10  # steps that a mean is over, and that the alarm is silent for once raised
    max_share: float = 0.3  # of the rollouts: raised when more than this are cut off


@dataclass(slots=True)
class Alarms:
    no_signal: NoSignal = field(default_factory=NoSignal)
    reward_errors: RewardErrors = field(default_factory=RewardErrors)
    cut_off: CutOffAnswers = field(default_factory=CutOffAnswers)
    length_collapse: LengthCollapse = field(default_factory=LengthCollapse)
    entropy_collapse: EntropyCollapse = field(default_factory=EntropyCollapse)
    divergence: Divergence = field(default_factory=Divergence)
