"""The short runs that the cost model's parts are measured on. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from rlstack.config.schema import RunConfig

IN_TURN_STEPS, IN_TURN_INTERVAL = 24, 4  # six syncs; a step in four needs no pass of a following reference
OVERLAPPED_STEPS, OVERLAPPED_INTERVAL = 40, 8
SMALL_BATCH = 4  # the small batch is the configured one divided by this: it tells fixed costs from the others


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """One run: the settings over those of the configuration, as KEY=VALUE."""

    name: str
    settings: tuple[str, ...]


def calibration_runs(config: RunConfig) -> list[Calibration]:
    """What to run, with `config` below it, for tuning.fit: two minutes for the quickstart on two cores.

    Two runs in turn, where every part is alone and can be timed, with two sizes of batch; and one with
    overlap, which shows what the parts cost each other.
    """
    prompts = config.batch.prompts_per_step
    in_turn = (
        f"schedule.num_steps={IN_TURN_STEPS}",
        f"schedule.sync_interval={IN_TURN_INTERVAL}",
        "rollout.overlap=false",
    )
    overlapped = (
        f"schedule.num_steps={OVERLAPPED_STEPS}",
        f"schedule.sync_interval={OVERLAPPED_INTERVAL}",
        "rollout.overlap=true",
    )
    all_runs = ("schedule.lag=0", "schedule.evaluate_every=null")
    unevaluated = ("evaluation.num_prompts=1", "evaluation.n=1")
    small = (f"batch.prompts_per_step={max(1, prompts // SMALL_BATCH)}",)
    return [
        Calibration(name="in-turn", settings=all_runs + in_turn),
        Calibration(name="in-turn-small", settings=all_runs + in_turn + small + unevaluated),
        Calibration(name="overlapped", settings=all_runs + overlapped + unevaluated),
    ]
