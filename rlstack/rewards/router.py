"""Each group to the reward that its task asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from types import TracebackType
from typing import Any

from rlstack.config.reward_names import RewardKind, kind_of, verifier_workers
from rlstack.config.schema import Reward as RewardSettings
from rlstack.config.schema import RunConfig
from rlstack.config.tasks import tasks_by_setting
from rlstack.data.records import Prompt, RolloutGroup, ScoredGroup
from rlstack.rewards.lane import Lane
from rlstack.rewards.math import MathScorer
from rlstack.rewards.metrics import reward_metrics
from rlstack.rewards.plugin import PluginScorer
from rlstack.rewards.scorer import Scorer
from rlstack.rewards.scoring import Scoring


class Rewards:
    """The rewards that a run's tasks name, those of training and of evaluation alike."""

    def __init__(
        self,
        config: RunConfig,
        models: Mapping[str, Scorer] | None = None,
        *,
        given: Mapping[str, Any] | None = None,
    ) -> None:
        """Start what the rewards need; close() or the end of the context ends it, but for `models`.

        Args:
            config: the run's settings, validated.
            models: the reward models that a task names, running, by name; None if none does.
            given: plug-ins that are not imported, by name; see config.own_code.OwnCode.

        Raises:
            ConfigError: a plug-in cannot be imported.
        """
        tasks = tasks_by_setting(config)
        scorers: dict[str, Scorer] = dict(models or {})
        with ExitStack() as started:
            for key, task in tasks.items():
                if task.reward not in scorers:
                    own = (given or {}).get(task.reward)
                    scorer = start_scorer(task.reward, config.reward, setting=f"{key}.reward", given=own)
                    scorers[task.reward] = started.enter_context(closing(scorer))
            workers = verifier_workers(config.reward)
            lanes = {name: Lane(name, scorer, num_workers=workers) for name, scorer in scorers.items()}
            for lane in lanes.values():
                started.callback(lane.close)
            self._running = started.pop_all()
        self._lane_of = {task.name: lanes[task.reward] for task in tasks.values()}
        self._scorer_of = {task.name: scorers[task.reward] for task in tasks.values()}

    def expect(self, prompts: Sequence[Prompt]) -> Scoring:
        """Scores for the groups of `prompts`, which are still to come; rewards work side by side."""
        return Scoring(prompts, self._lane_of)

    def score(self, groups: Sequence[RolloutGroup]) -> list[ScoredGroup]:
        """The groups in the order given, each scored by its own task's reward."""
        scoring = self.expect([group.prompt for group in groups])
        for position, group in enumerate(groups):
            scoring.add(position, group)
        return scoring.result()

    def gives_verdicts(self, task: str) -> bool:
        """See rewards.scorer.Scorer; of the reward of the task of this name."""
        return self._scorer_of[task].gives_verdicts

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


def start_scorer(reward: str, settings: RewardSettings, *, setting: str, given: Any = None) -> Scorer:
    """The math verifier or the plug-in that `reward` names; models are started by the orchestration.

    given: the plug-in itself, where it is not to be imported.

    Raises:
        ConfigError: the plug-in, which `setting` asks for, cannot be imported.
    """
    if kind_of(reward) is RewardKind.plugin:
        return PluginScorer(reward, settings, setting=setting, given=given)
    assert kind_of(reward) is RewardKind.math, f"the reward model {reward!r} has not been started"
    return MathScorer(verifier_workers(settings), settings.timeout_s)
