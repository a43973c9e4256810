"""The rollouts of every step, in order, sampled and scored ahead of the trainer as far as is allowed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext

from rlstack.config.schema import Placement, RunConfig
from rlstack.config.sequences import max_steps_ahead
from rlstack.data.records import Prompt, RolloutGroup, ScoredGroup
from rlstack.data.sampling import PromptSampler
from rlstack.errors import ConfigError
from rlstack.orchestration.chunks import chunk_at
from rlstack.orchestration.engine_group import EngineGroup
from rlstack.orchestration.engine_seat import Answer, Sampling
from rlstack.orchestration.pending import PendingScores
from rlstack.orchestration.schedule import Schedule
from rlstack.rewards.router import Rewards


class RolloutStream:
    """Asks for step t's rollouts once the generator holds, or is about to hold, `schedule.version_for(t)`.

    That rule is the back-pressure between versions; within a version at most `rollout.max_steps_ahead` steps
    wait to be taken, and fewer where those could exceed `rollout.max_ahead_gib`. What is sampled depends on
    (run.seed, step, version), not on timing.

    Without `rollout.overlap` a step is sampled when it is taken, and scored after that. Engines that sleep
    while the policy trains (cluster.placement=colocated) sample as much as they may before they do.
    """

    def __init__(
        self,
        prompts: PromptSampler,
        engines: EngineGroup,
        rewards: Rewards,
        schedule: Schedule,
        config: RunConfig,
        *,
        first_step: int = 0,
        kept: Mapping[int, Mapping[int, RolloutGroup]] | None = None,
        phase: Callable[[str], AbstractContextManager[None]] = lambda name: nullcontext(),
    ) -> None:
        """first_step: the first that will be taken; kept: groups that are there, by step and position.

        phase: counts the time in it towards a part of the step, generate_wait or reward.

        Raises ConfigError if a group that is kept answers another prompt than its place has.
        """
        self._prompts = prompts
        self._engines = engines
        self._rewards = rewards
        self._schedule = schedule
        self._num_prompts = config.batch.prompts_per_step
        self._overlap = config.rollout.overlap
        self._in_shifts = config.cluster.placement is Placement.colocated
        self._max_steps_ahead = max_steps_ahead(config)
        self._phase = phase
        rollout = config.rollout
        self._sampling = Sampling(n=rollout.n, temperature=rollout.temperature, top_p=rollout.top_p)
        self._version: int | None = None  # of the generator; nothing may start before the first admit
        self._next_step = first_step  # the first step that has not been asked for
        self._kept = {step: dict(groups) for step, groups in (kept or {}).items()}  # of steps not asked for
        self._ahead: dict[int, PendingScores] = {}  # asked for and not taken

    def admit(self, *, version: int) -> None:
        """What is asked of the engines from now on finds `version` there: its steps may start."""
        self._version = version
        self._ask_ahead()

    def take(self, step: int) -> list[ScoredGroup]:
        """The groups of `step` with their scores; waits for them. Steps are taken in order, each once."""
        with self._phase("generate_wait"):
            if step not in self._ahead:
                self._ask(self._together(step))
            taken = self._ahead.pop(step)
            self._ask_ahead()
            groups = taken.groups()
            if self._in_shifts:
                for pending in self._ahead.values():
                    pending.groups()
            self._check_version(step, groups)
        with self._phase("reward"):
            return taken.scored()

    def complete(self, *, before: int) -> None:
        """Wait until all rollouts are sampled that versions older than `before` have to write."""
        while self._is_of_older(self._next_step, before):
            self._ask(self._together(self._next_step))
        for step, pending in self._ahead.items():
            if self._is_of_older(step, before):
                pending.groups()

    def finished(self) -> dict[int, dict[int, RolloutGroup]]:
        """The groups that are there, by step and position, of steps that have not been taken."""
        there = self._kept | {step: pending.finished() for step, pending in self._ahead.items()}
        return {step: dict(there[step]) for step in sorted(there) if there[step]}

    def _ask_ahead(self) -> None:
        while self._overlap and self._may_start(self._next_step):
            chunk = self._chunk(self._next_step)
            if len(self._ahead) + len(chunk) > self._max_steps_ahead:
                return
            self._ask(chunk)

    def _together(self, step: int) -> range:
        """What is asked for when `step` is needed at once: in shifts all that its weights have to write."""
        return self._chunk(step) if self._in_shifts else range(step, step + 1)

    def _chunk(self, step: int) -> range:
        return chunk_at(self._schedule, step, max_steps=self._max_steps_ahead)

    def _ask(self, steps: range) -> None:
        prompts = {step: self._prompts.take(step, self._num_prompts) for step in steps}
        kept = {step: self._take_kept(step, of_step) for step, of_step in prompts.items()}
        places = [(step, i) for step in steps for i in range(self._num_prompts) if i not in kept[step]]
        answers = self._engines.submit(
            [prompts[step][i] for step, i in places], self._sampling, stream="train", places=places
        )
        answer_at = dict(zip(places, answers, strict=True))
        for step in steps:
            self._ahead[step] = PendingScores(
                prompts[step],
                [
                    _there(kept[step][i]) if i in kept[step] else answer_at[step, i]
                    for i in range(self._num_prompts)
                ],
                self._rewards,
                attend=self._engines.attend,
                step=step,
                early=self._overlap or self._in_shifts,
            )
        self._next_step = steps.stop

    def _take_kept(self, step: int, prompts: Sequence[Prompt]) -> dict[int, RolloutGroup]:
        kept = self._kept.pop(step, {})
        for position, group in kept.items():
            if group.prompt != prompts[position]:
                raise ConfigError(
                    f"the checkpoint holds rollouts of another prompt for place {position} of step {step}: "
                    f"row {group.prompt.row} of task {group.prompt.task!r}, where the data has row "
                    f"{prompts[position].row} of task {prompts[position].task!r}; go on with the same data"
                )
        return kept

    def _may_start(self, step: int) -> bool:
        return (
            step < self._schedule.num_steps
            and self._version is not None
            and self._schedule.version_for(step) <= self._version
        )

    def _is_of_older(self, step: int, version: int) -> bool:
        return step < self._schedule.num_steps and self._schedule.version_for(step) < version

    def _check_version(self, step: int, groups: list[RolloutGroup]) -> None:
        expected = self._schedule.version_for(step)
        found = {rollout.version for group in groups for rollout in group.rollouts}
        if found != {expected}:
            raise RuntimeError(
                f"the rollouts of step {step} come from versions {sorted(found)}; "
                f"the schedule asks for version {expected}"
            )


def _there(group: RolloutGroup) -> Future[Answer]:
    answer: Future[Answer] = Future()
    answer.set_result(group.rollouts)
    return answer
