"""A reward model: all its copies as one, prompts dealt out in turn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlstack.config.schema import RewardModel
from rlstack.data.records import Score
from rlstack.orchestration.dealing import deal, put_together
from rlstack.orchestration.roles import Role, wait_for
from rlstack.rewards.scorer import Question


def build_reward_model(**kwargs: Any) -> Any:
    from rlstack.rewards.reward_model import RewardModel

    return RewardModel(**kwargs)


class RewardModelGroup:
    """A rewards.scorer.Scorer. Starts loading when it is made."""

    depends_on_batch = True  # the order of the additions in a matrix product changes with its shape

    def __init__(self, settings: RewardModel, *, key: str, logs: Path, num_gpus_per_actor: int) -> None:
        """`key` is the model's place in the settings, for messages: reward.models[0]."""
        self._settings = settings
        self._key = key
        self._roles = [
            Role(
                f"reward model {settings.name} {index}",
                log=logs / f"reward-{settings.name}-{index}.log",
                build=build_reward_model,
                num_gpus=num_gpus_per_actor,
                settings=settings,
            )
            for index in range(settings.num_actors)
        ]

    def wait_until_ready(self) -> None:
        wait_for(
            {role: role.start("warm_up") for role in self._roles},
            timeout_s=self._settings.start_timeout_s,
            doing="loading the reward model",
            setting=f"{self._key}.start_timeout_s",
        )

    def score(self, questions: Sequence[Question]) -> list[tuple[Score, ...]]:
        """See rewards.scorer.Scorer.

        Raises:
            RoleError: a copy failed, died or did not answer within the limit.
        """
        dealt = zip(self._roles, deal(questions, len(self._roles)), strict=True)
        calls = {role: role.start("score", of_role) for role, of_role in dealt}
        shares = wait_for(
            calls,
            timeout_s=self._settings.timeout_s,
            doing="scoring rollouts",
            setting=f"{self._key}.timeout_s",
        )
        return put_together(shares.values(), len(questions))

    def close(self) -> None:
        """Nothing: the processes end with the cluster."""
