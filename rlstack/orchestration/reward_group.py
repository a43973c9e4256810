"""A reward model: all its copies as one, prompts dealt out in turn."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from rlstack.config.schema import RewardModel
from rlstack.data.records import Score
from rlstack.orchestration.dealing import deal, put_together
from rlstack.orchestration.home import Home
from rlstack.orchestration.protocols import RewardModelReplica
from rlstack.orchestration.restarts import Restarts
from rlstack.orchestration.roles import Call, RewardModelLost, Role, wait_for
from rlstack.rewards.scorer import Question

R = TypeVar("R")


def build_reward_model(settings: RewardModel) -> RewardModelReplica:
    from rlstack.rewards import reward_model

    return reward_model.RewardModel(settings)


class RewardModelGroup:
    """A rewards.scorer.Scorer. Starts loading when it is made."""

    depends_on_batch = True  # the order of the additions in a matrix product changes with its shape
    gives_verdicts = False

    def __init__(
        self,
        settings: RewardModel,
        *,
        key: str,
        logs: Path,
        home_of: Callable[[str], Home],
        restarts: Restarts,
    ) -> None:
        """`key` is the model's place in the settings, for messages: reward.models[0].

        home_of: the home of a copy that is started, by its name.
        """
        self._settings = settings
        self._key = key
        self._logs = logs
        self._home_of = home_of
        self._restarts = restarts
        self._replacing = threading.Lock()  # callers may be several
        self.roles = [self._start(index) for index in range(settings.num_actors)]

    def wait_until_ready(self) -> None:
        self._load(self.roles)

    def score(self, questions: Sequence[Question]) -> list[tuple[Score, ...]]:
        """See rewards.scorer.Scorer. A copy that is lost is replaced, and its share asked for again.

        Raises:
            RoleError: one copy too many failed, died or did not answer within the limit.
        """
        shares = deal(questions, len(self.roles))
        while True:
            roles = list(self.roles)
            calls = [
                role.start(RewardModelReplica.score, share) for role, share in zip(roles, shares, strict=True)
            ]
            try:
                scores = self._wait(calls, "scoring rollouts", "timeout_s", self._settings.timeout_s)
                return put_together(scores, len(questions))
            except RewardModelLost as lost:
                self._replace(lost)

    def _replace(self, lost: RewardModelLost) -> None:
        with self._replacing:
            index = next((i for i, role in enumerate(self.roles) if role is lost.role), None)
            if index is None:
                return
            with self._restarts.replacing(lost):
                lost.role.kill()
                self.roles[index] = self._start(index)
                self._load([self.roles[index]])

    def _start(self, index: int) -> Role[RewardModelReplica]:
        name = f"reward model {self._settings.name} {index}"
        return Role(
            name,
            log=self._logs / f"reward-{self._settings.name}-{index}.log",
            build=partial(build_reward_model, self._settings),
            home=self._home_of(name),
            lost=RewardModelLost,
        )

    def _load(self, roles: Sequence[Role[RewardModelReplica]]) -> None:
        calls = [role.start(RewardModelReplica.warm_up) for role in roles]
        self._wait(calls, "loading the reward model", "start_timeout_s", self._settings.start_timeout_s)
        for role in roles:
            role.note_processes()

    def _wait(self, calls: Sequence[Call[R]], doing: str, limit: str, timeout_s: float) -> list[R]:
        return wait_for(calls, timeout_s=timeout_s, doing=doing, setting=f"{self._key}.{limit}")

    def close(self) -> None:
        """Nothing: the processes end with the cluster."""
