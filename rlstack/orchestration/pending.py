"""A batch of prompts on its way: first the rollouts, then their scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, wait

from rlstack.data.records import Prompt, RolloutGroup, ScoredGroup
from rlstack.orchestration.engine_seat import Answer
from rlstack.rewards.router import Rewards

POLL_S = 0.2  # how soon one who waits sees that an engine was lost


class PendingGroups:
    """Rollouts that are being sampled; result() waits for them."""

    def __init__(
        self,
        prompts: Sequence[Prompt],
        answers: Sequence[Future[Answer]],
        *,
        attend: Callable[[], object],
        step: int | None = None,
        then: Callable[[int, RolloutGroup], object] = lambda position, group: None,
    ) -> None:
        """step: the training step of the groups; None: the version of their rollouts.

        `attend` is called now and then by who waits; see EngineGroup.attend.
        `then` is called with each group and its position as soon as it is there, by the thread that took it.
        """
        self._attend = attend
        self._groups: list[Future[RolloutGroup]] = [Future() for _ in prompts]
        for position, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
            answer.add_done_callback(self._arrival(position, prompt, step, then))

    def result(self) -> list[RolloutGroup]:
        """The groups in the order of the prompts. Raises what kept one of them from coming, at once."""
        while True:
            done, missing = wait(self._groups, timeout=POLL_S, return_when=FIRST_EXCEPTION)
            for group in done:
                group.result()
            if not missing:
                break
            self._attend()
        return [group.result() for group in self._groups]

    def finished(self) -> dict[int, RolloutGroup]:
        """The groups that are there, by position."""
        there = {i: group for i, group in enumerate(self._groups) if group.done()}
        return {i: group.result() for i, group in there.items() if group.exception() is None}

    def _arrival(
        self,
        position: int,
        prompt: Prompt,
        step: int | None,
        then: Callable[[int, RolloutGroup], object],
    ) -> Callable[[Future[Answer]], None]:
        def arrive(answer: Future[Answer]) -> None:
            try:
                rollouts = answer.result()
                version = rollouts[0].version
                group = RolloutGroup(step=version if step is None else step, prompt=prompt, rollouts=rollouts)
                then(position, group)
            except BaseException as error:
                self._groups[position].set_exception(error)
            else:
                self._groups[position].set_result(group)

        return arrive


class PendingScores:
    """As PendingGroups, with the scores of the groups."""

    def __init__(
        self,
        prompts: Sequence[Prompt],
        answers: Sequence[Future[Answer]],
        rewards: Rewards,
        *,
        attend: Callable[[], object],
        step: int | None = None,
        early: bool = True,
    ) -> None:
        """early: score every group as soon as it is there, not all of them once scores are asked for."""
        self._early = early
        self._scoring = rewards.expect(prompts)
        if early:
            self._groups = PendingGroups(prompts, answers, attend=attend, step=step, then=self._scoring.add)
        else:
            self._groups = PendingGroups(prompts, answers, attend=attend, step=step)

    def groups(self) -> list[RolloutGroup]:
        """See PendingGroups.result."""
        return self._groups.result()

    def finished(self) -> dict[int, RolloutGroup]:
        """See PendingGroups.finished."""
        return self._groups.finished()

    def scored(self) -> list[ScoredGroup]:
        """The groups with their scores, in the order of the prompts; waits for both. Once only."""
        groups = self._groups.result()
        if not self._early:
            for position, group in enumerate(groups):
                self._scoring.add(position, group)
        return self._scoring.result()
