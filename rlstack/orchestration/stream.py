"""The rollouts of every step, in order, sampled and scored ahead of the trainer as far as is allowed."""

from __future__ import annotations

from rlstack.config.schema import RunConfig
from rlstack.data.records import RolloutGroup, ScoredGroup
from rlstack.data.sampling import PromptSampler
from rlstack.orchestration.chunks import chunk_at
from rlstack.orchestration.engine_group import EngineGroup, Sampling
from rlstack.orchestration.pending import PendingScores
from rlstack.orchestration.schedule import Schedule
from rlstack.rewards.router import Rewards


class RolloutStream:
    """Asks for step t's rollouts once the generator holds, or is about to hold, `schedule.version_for(t)`.

    That rule is the back-pressure between versions; within a version at most `rollout.max_steps_ahead` steps
    wait to be taken. What is sampled depends on (run.seed, step, version), not on timing.

    Without `rollout.overlap` a step is sampled when it is taken, and scored after that.
    """

    def __init__(
        self,
        prompts: PromptSampler,
        engines: EngineGroup,
        rewards: Rewards,
        schedule: Schedule,
        config: RunConfig,
    ) -> None:
        self._prompts = prompts
        self._engines = engines
        self._rewards = rewards
        self._schedule = schedule
        self._num_prompts = config.batch.prompts_per_step
        self._overlap = config.rollout.overlap
        self._max_steps_ahead = config.rollout.max_steps_ahead
        rollout = config.rollout
        self._sampling = Sampling(n=rollout.n, temperature=rollout.temperature, top_p=rollout.top_p)
        self._version: int | None = None  # of the generator; nothing may start before the first admit
        self._next_step = 0  # the first step that has not been asked for
        self._ahead: dict[int, PendingScores] = {}  # asked for and not taken
        self._taken: PendingScores | None = None  # whose scores are to be asked for next

    def admit(self, *, version: int) -> None:
        """What is asked of the engines from now on finds `version` there: its steps may start."""
        self._version = version
        self._ask_ahead()

    def take(self, step: int) -> list[RolloutGroup]:
        """The groups of `step`; waits for them. Steps are taken in order, each once."""
        if step not in self._ahead:
            self._ask(range(step, step + 1))
        self._taken = self._ahead.pop(step)
        self._ask_ahead()
        groups = self._taken.groups()
        self._check_version(step, groups)
        return groups

    def scores(self) -> list[ScoredGroup]:
        """The groups taken last, with their scores; waits for them."""
        assert self._taken is not None, "take comes first"
        taken, self._taken = self._taken, None
        return taken.scored()

    def complete(self, *, before: int) -> None:
        """Wait until all rollouts are sampled that versions older than `before` have to write."""
        while self._is_of_older(self._next_step, before):
            self._ask(range(self._next_step, self._next_step + 1))
        for step, pending in self._ahead.items():
            if self._is_of_older(step, before):
                pending.groups()

    def _ask_ahead(self) -> None:
        while self._overlap and self._may_start(self._next_step):
            chunk = chunk_at(self._schedule, self._next_step, max_steps=self._max_steps_ahead)
            if len(self._ahead) + len(chunk) > self._max_steps_ahead:
                return
            self._ask(chunk)

    def _ask(self, steps: range) -> None:
        count = self._num_prompts
        prompts = [prompt for step in steps for prompt in self._prompts.take(step, count)]
        places = [(step, position) for step in steps for position in range(count)]
        answers = self._engines.submit(prompts, self._sampling, stream="train", places=places)
        for i, step in enumerate(steps):
            of_step = slice(i * count, (i + 1) * count)
            self._ahead[step] = PendingScores(
                prompts[of_step], answers[of_step], self._rewards, step=step, early=self._overlap
            )
        self._next_step = steps.stop

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
