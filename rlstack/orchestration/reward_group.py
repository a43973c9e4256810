"""A reward model: all its copies as one, prompts dealt out in turn."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlstack.config.schema import RewardModel
from rlstack.data.records import Score
from rlstack.orchestration.dealing import deal, put_together
from rlstack.orchestration.home import Home
from rlstack.orchestration.restarts import Restarts
from rlstack.orchestration.role_errors import RewardModelLost
from rlstack.orchestration.roles import Role, wait_for
from rlstack.rewards.scorer import Question


def build_reward_model(**kwargs: Any) -> Any:
    from rlstack.rewards.reward_model import RewardModel

    return RewardModel(**kwargs)


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
            calls = {role: role.start("score", share) for role, share in zip(roles, shares, strict=True)}
            try:
                scores = self._wait(calls, "scoring rollouts", "timeout_s", self._settings.timeout_s)
                return put_together(scores.values(), len(questions))
            except RewardModelLost as lost:
                self._replace(lost)

    def _replace(self, lost: RewardModelLost) -> None:
        with self._replacing:
            if lost.role not in self.roles:
                return
            with self._restarts.replacing(lost):
                lost.role.kill()
                index = self.roles.index(lost.role)
                self.roles[index] = self._start(index)
                self._load([self.roles[index]])

    def _start(self, index: int) -> Role:
        name = f"reward model {self._settings.name} {index}"
        return Role(
            name,
            log=self._logs / f"reward-{self._settings.name}-{index}.log",
            build=build_reward_model,
            home=self._home_of(name),
            lost=RewardModelLost,
            settings=self._settings,
        )

    def _load(self, roles: Sequence[Role]) -> None:
        calls = {role: role.start("warm_up") for role in roles}
        self._wait(calls, "loading the reward model", "start_timeout_s", self._settings.start_timeout_s)
        for role in roles:
            role.note_processes()

    def _wait(self, calls: Mapping[Role, Any], doing: str, limit: str, timeout_s: float) -> dict[Role, Any]:
        return wait_for(calls, timeout_s=timeout_s, doing=doing, setting=f"{self._key}.{limit}")

    def close(self) -> None:
        """Nothing: the processes end with the cluster."""
