"""The rollouts of every step, in order, sampled ahead of the trainer as far as the schedule allows."""

from __future__ import annotations

from rlstack.config.schema import RunConfig
from rlstack.data.records import Prompt, RolloutGroup
from rlstack.data.sampling import PromptSampler
from rlstack.orchestration.engine_group import EngineGroup, Pending, Sampling
from rlstack.orchestration.schedule import Schedule


class RolloutStream:
    """Submits step t's prompts once the generator holds `schedule.version_for(t)`.

    That rule is the back-pressure between versions; within a version at most `rollout.max_steps_ahead`
    steps wait to be taken. What is sampled depends on (run.seed, step, version), not on timing.
    """

    def __init__(
        self, prompts: PromptSampler, engines: EngineGroup, schedule: Schedule, config: RunConfig
    ) -> None:
        self._prompts = prompts
        self._engines = engines
        self._schedule = schedule
        self._num_prompts = config.batch.prompts_per_step
        self._max_steps_ahead = config.rollout.max_steps_ahead
        rollout = config.rollout
        self._sampling = Sampling(n=rollout.n, temperature=rollout.temperature, top_p=rollout.top_p)
        self._version: int | None = None  # of the generator; nothing may start before the first admit
        self._next_step = 0  # the first step that is not submitted yet
        self._pending: dict[int, tuple[list[Prompt], Pending]] = {}

    def admit(self, *, version: int) -> None:
        """The generator holds `version` now: its steps may start."""
        self._version = version
        self._submit()

    def take(self, step: int) -> list[RolloutGroup]:
        """The groups of `step`; waits for them. Steps are taken in order, each once."""
        prompts, pending = self._pending.pop(step)
        answers = pending.result()
        self._submit()
        groups = [
            RolloutGroup(step=step, prompt=prompt, rollouts=rollouts)
            for prompt, rollouts in zip(prompts, answers, strict=True)
        ]
        self._check_version(step, groups)
        return groups

    def drain(self) -> None:
        """Wait until all that was submitted is sampled: what the engines are asked next starts at once."""
        for _, pending in self._pending.values():
            pending.result()

    def _submit(self) -> None:
        while self._may_start(step := self._next_step):
            prompts = self._prompts.take(step, self._num_prompts)
            pending = self._engines.submit(prompts, self._sampling, stream="train", step=step)
            self._pending[step] = (prompts, pending)
            self._next_step += 1

    def _may_start(self, step: int) -> bool:
        return (
            step < self._schedule.num_steps
            and len(self._pending) < self._max_steps_ahead
            and self._version is not None
            and self._schedule.version_for(step) <= self._version
        )

    def _check_version(self, step: int, groups: list[RolloutGroup]) -> None:
        expected = self._schedule.version_for(step)
        found = {rollout.version for group in groups for rollout in group.rollouts}
        if found != {expected}:
            raise RuntimeError(
                f"the rollouts of step {step} come from versions {sorted(found)}; "
                f"the schedule asks for version {expected}"
            )
