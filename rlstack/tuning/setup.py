"""What the tuner and the planner may choose: the regime, the batch, the layouts."""

from __future__ import annotations

from dataclasses import dataclass, field

from rlstack.config.schedule_words import WITH_GENERATOR
from rlstack.config.schema import Placement, RunConfig
from rlstack.config.sequences import max_steps_ahead
from rlstack.losses.build import build_loss
from rlstack.losses.own import load_loss
from rlstack.orchestration.schedule import Schedule
from rlstack.tuning.parts import Layout


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """One choice. The defaults are those of the settings of the same names."""

    sync_interval: int | None  # s; None: offline
    lag: int = 0
    prompts_per_step: int = 16
    n: int = 8
    engines: int = 1
    layout: Layout = field(default_factory=Layout)
    max_num_seqs: int = 256
    max_steps_ahead: int = 16
    overlap: bool = True  # False: generating, scoring and training take turns
    in_shifts: bool = False  # on shared GPUs: all that may be sampled is, before training goes on
    num_steps: int = 100
    evaluate_every: int | None = None
    reference_follows: bool = False  # the reference is synced whenever the generator is
    reference_interval: int | None = None  # otherwise; None: the reference stays at version 0
    needs_reference: bool = True  # the loss compares with a reference

    @classmethod
    def of(cls, config: RunConfig) -> Setup:
        """The choice that validated settings are; `schedule.sync_interval` is not auto.

        Raises ConfigError if the loss that objective.loss names cannot be imported.
        """
        schedule, objective = Schedule.of(config.schedule), config.objective
        own_loss = None if objective.loss is None else load_loss(objective.loss)
        return cls(
            sync_interval=schedule.sync_interval,
            lag=schedule.lag,
            prompts_per_step=config.batch.prompts_per_step,
            n=config.rollout.n,
            engines=config.rollout.engines,
            layout=Layout.of(config.policy),
            max_num_seqs=config.rollout.max_num_seqs,
            max_steps_ahead=max_steps_ahead(config),
            overlap=config.rollout.overlap,
            in_shifts=config.cluster.placement is Placement.colocated,
            num_steps=schedule.num_steps,
            evaluate_every=schedule.evaluate_every,
            reference_follows=config.schedule.reference_sync == WITH_GENERATOR,
            reference_interval=schedule.reference_interval,
            needs_reference=build_loss(objective, own_loss).needs_reference,
        )

    @property
    def schedule(self) -> Schedule:
        return Schedule(
            num_steps=self.num_steps,
            sync_interval=self.sync_interval,
            lag=self.lag,
            reference_interval=self.sync_interval if self.reference_follows else self.reference_interval,
            evaluate_every=self.evaluate_every,
        )

    @property
    def asks_ahead(self) -> bool:
        """Whether several steps' rollouts are asked for together, and scored as they come."""
        return self.overlap or self.in_shifts

    @property
    def syncs_beside(self) -> bool:
        """Whether a version arrives while the one before it is still sampled and trained on."""
        return self.overlap and self.lag > 0

    @property
    def rollouts_per_step(self) -> int:
        return self.prompts_per_step * self.n

    def needs_reference_pass(self, step: int) -> bool:
        """Whether training on `step` takes a pass of the reference: it is not the policy itself."""
        return self.needs_reference and self.schedule.reference_version_at(step) != step


def steady_steps(setup: Setup) -> range:
    """The steps that a step's time is a mean over: whole intervals without the first one.

    Where there are no two intervals, all but the first quarter of the steps.
    """
    interval, num_steps = setup.sync_interval, setup.num_steps
    if interval is None or num_steps < 2 * interval:
        return range(num_steps // 4, num_steps)
    return range(interval, num_steps // interval * interval)
