"""The short runs that the cost model's parts are measured on. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from rlstack.config.schema import RunConfig

IN_TURN_STEPS, IN_TURN_INTERVAL = 24, 4  # six syncs; a step in four needs no pass of a following reference
LARGE_STEPS = 12  # of the same interval
OVERLAPPED_STEPS, OVERLAPPED_INTERVAL = 40, 8
SPREAD = 4  # the small batch is the configured one divided by this, the large one at most times this


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """One run: the settings over those of the configuration, as KEY=VALUE."""

    name: str
    settings: tuple[str, ...]


def calibration_runs(config: RunConfig) -> list[Calibration]:
    """What to run, with `config` below it, for tuning.fit: less than three minutes for the quickstart.

    Runs in turn, where every part is alone and can be timed, at several sizes of batch: the configured one, a
    small one, and one that fills the engines as rollouts ahead do. And one with overlap, which shows what the
    parts cost each other.
    """
    prompts = config.batch.prompts_per_step
    runs = [_in_turn("in-turn", prompts, IN_TURN_STEPS, evaluated=True)]
    runs += [_in_turn("in-turn-small", max(1, prompts // SPREAD), IN_TURN_STEPS)]
    runs += [_in_turn("in-turn-large", large, LARGE_STEPS) for large in _filling(config)]
    overlapped = ("rollout.overlap=true", *_steps(OVERLAPPED_STEPS, OVERLAPPED_INTERVAL))
    return [*runs, Calibration(name="overlapped", settings=(*overlapped, *_unevaluated()))]


def _in_turn(name: str, prompts: int, num_steps: int, *, evaluated: bool = False) -> Calibration:
    settings = ("rollout.overlap=false", *_steps(num_steps, IN_TURN_INTERVAL))
    batch = (f"batch.prompts_per_step={prompts}",)
    return Calibration(name=name, settings=settings + batch + (() if evaluated else _unevaluated()))


def _filling(config: RunConfig) -> Iterator[int]:
    """The prompts of a step that take all places of the engines, if the configured ones do not."""
    prompts, rollout = config.batch.prompts_per_step, config.rollout
    filling = math.ceil(rollout.max_num_seqs * rollout.engines / rollout.n)
    if filling > prompts:
        yield min(filling, SPREAD * prompts)


def _steps(num_steps: int, interval: int) -> tuple[str, ...]:
    return (
        f"schedule.num_steps={num_steps}",
        f"schedule.sync_interval={interval}",
        "schedule.lag=0",
        "schedule.evaluate_every=null",
        "schedule.save_every=null",
    )


def _unevaluated() -> tuple[str, ...]:
    return ("evaluation.num_prompts=1", "evaluation.n=1")
