"""Held-out accuracy of the weights that the generator holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rlstack.config.schema import RunConfig
from rlstack.data.records import Prompt, RolloutGroup
from rlstack.evaluation.accuracy import accuracy
from rlstack.orchestration.engine_group import EngineGroup, Sampling
from rlstack.rewards.router import Rewards


class Evaluator:
    """Answers the same prompts each time, with the same seeds."""

    def __init__(
        self, prompts: Sequence[Prompt], engines: EngineGroup, rewards: Rewards, config: RunConfig
    ) -> None:
        self._prompts = prompts
        self._engines = engines
        self._rewards = rewards
        evaluation = config.evaluation
        self._sampling = Sampling(n=evaluation.n, temperature=evaluation.temperature, top_p=evaluation.top_p)

    def run(self) -> dict[str, Any]:
        """eval/accuracy, eval/accuracy_stderr and the eval/version that they are of; {} without prompts."""
        if not self._prompts:
            return {}
        answers = self._engines.submit(self._prompts, self._sampling, stream="evaluate", step=0).result()
        groups = [
            RolloutGroup(step=rollouts[0].version, prompt=prompt, rollouts=rollouts)
            for prompt, rollouts in zip(self._prompts, answers, strict=True)
        ]
        return accuracy(self._rewards.score(groups)).metrics()
