"""Each group to the reward that its task asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from types import TracebackType

from rlstack.config.reward_names import RewardKind, kind_of
from rlstack.config.schema import Reward as RewardSettings
from rlstack.config.schema import RunConfig
from rlstack.config.tasks import tasks_by_setting
from rlstack.data.records import RolloutGroup, ScoredGroup
from rlstack.rewards.math import MathScorer
from rlstack.rewards.metrics import reward_metrics
from rlstack.rewards.plugin import PluginScorer
from rlstack.rewards.scorer import Question, Scorer


class Rewards:
    """The rewards that a run's tasks name, those of training and of evaluation alike."""

    def __init__(self, config: RunConfig, models: Mapping[str, Scorer] | None = None) -> None:
        """Start what the rewards need; close() or the end of the context ends it, but for `models`.

        Args:
            config: the run's settings, validated.
            models: the reward models that a task names, running, by name; None if none does.

        Raises:
            ConfigError: a plug-in cannot be imported.
        """
        tasks = tasks_by_setting(config)
        self._reward_of = {task.name: task.reward for task in tasks.values()}
        self._scorers: dict[str, Scorer] = dict(models or {})
        with ExitStack() as started:
            for key, task in tasks.items():
                if task.reward not in self._scorers:
                    scorer = start_scorer(task.reward, config.reward, setting=f"{key}.reward")
                    self._scorers[task.reward] = started.enter_context(closing(scorer))
            # One thread for each reward: one may wait for Ray while another waits for processes.
            self._threads = ThreadPoolExecutor(len(self._scorers) or 1, thread_name_prefix="router")
            started.callback(self._threads.shutdown, wait=False, cancel_futures=True)
            self._running = started.pop_all()

    def score(self, groups: Sequence[RolloutGroup]) -> list[ScoredGroup]:
        """The groups in the order given, each scored by its own task's reward; rewards work side by side."""
        shares: dict[str, list[int]] = {}
        for i, group in enumerate(groups):
            shares.setdefault(self._reward_of[group.prompt.task], []).append(i)
        pending = {
            name: self._threads.submit(self._scorers[name].score, [_question(groups[i]) for i in mine])
            for name, mine in shares.items()
        }
        scores = {
            i: of_group
            for name, mine in shares.items()
            for i, of_group in zip(mine, pending[name].result(), strict=True)
        }
        return [ScoredGroup(group=group, scores=scores[i]) for i, group in enumerate(groups)]

    @staticmethod
    def metrics(scored: Sequence[ScoredGroup]) -> dict[str, float]:
        """reward/*: see rewards.metrics."""
        return reward_metrics(scored)

    def close(self) -> None:
        """End every process of the rewards."""
        self._running.close()

    def __enter__(self) -> Rewards:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def start_scorer(reward: str, settings: RewardSettings, *, setting: str) -> Scorer:
    """The math verifier or the plug-in that `reward` names; models are started by the orchestration.

    Raises:
        ConfigError: the plug-in, which `setting` asks for, cannot be imported.
    """
    if kind_of(reward) is RewardKind.plugin:
        return PluginScorer(reward, settings, setting=setting)
    assert kind_of(reward) is RewardKind.math, f"the reward model {reward!r} has not been started"
    return MathScorer(settings.workers, settings.timeout_s)


def _question(group: RolloutGroup) -> Question:
    prompt = group.prompt
    return Question(
        problem=prompt.problem,
        answer=prompt.answer,
        responses=tuple(rollout.text for rollout in group.rollouts),
    )
