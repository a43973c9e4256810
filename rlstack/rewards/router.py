"""Each group to the reward that its task asks for."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from statistics import fmean
from types import TracebackType

from rlstack.config.schema import Reward, RunConfig
from rlstack.data.records import Outcome, RolloutGroup, ScoredGroup
from rlstack.rewards.math import MathVerifier


class Rewards:
    """The rewards that a run's tasks name, those of training and of evaluation alike."""

    def __init__(self, config: RunConfig) -> None:
        """Start what the rewards need; close() or the end of the context ends it."""
        tasks = [*config.data.tasks, *config.evaluation.tasks]
        self._reward_of = {task.name: task.reward for task in tasks}
        self._running = ExitStack()
        self._verifiers = {
            name: self._running.enter_context(_verifier(name, config.reward))
            for name in sorted(set(self._reward_of.values()))
        }

    def score(self, groups: Sequence[RolloutGroup]) -> list[ScoredGroup]:
        """The groups in the order given, each rollout with its score; one batch per reward."""
        scored: dict[int, ScoredGroup] = {}
        for name, verifier in self._verifiers.items():
            mine = [i for i, group in enumerate(groups) if self._reward_of[group.prompt.task] == name]
            items = [(rollout.text, _gold(groups[i])) for i in mine for rollout in groups[i].rollouts]
            scores = iter(verifier.score(items))
            for i in mine:
                of_group = tuple(next(scores) for _ in groups[i].rollouts)
                scored[i] = ScoredGroup(group=groups[i], scores=of_group)
        return [scored[i] for i in range(len(groups))]

    @staticmethod
    def metrics(scored: Sequence[ScoredGroup]) -> dict[str, float]:
        """reward/mean (absent if no rollout has a reward), reward/timeouts and reward/errors (rollouts)."""
        scores = [score for group in scored for score in group.scores]
        rewards = [score.reward for score in scores if score.reward is not None]
        counts = {
            "reward/timeouts": sum(score.outcome is Outcome.timeout for score in scores),
            "reward/errors": sum(score.outcome is Outcome.error for score in scores),
        }
        return counts | ({"reward/mean": fmean(rewards)} if rewards else {})

    def close(self) -> None:
        """End every process of the rewards."""
        self._running.close()

    def __enter__(self) -> Rewards:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _verifier(name: str, settings: Reward) -> MathVerifier:
    assert name == "math", f"data.datasets refuses the reward {name!r}"
    return MathVerifier(settings.workers, settings.timeout_s)


def _gold(group: RolloutGroup) -> str:
    assert group.prompt.answer is not None, "data.datasets refuses rows without an answer"
    return group.prompt.answer
