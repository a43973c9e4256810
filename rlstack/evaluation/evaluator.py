"""How well the weights that the generator holds answer the held-out prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rlstack.config.schema import RunConfig, Selection
from rlstack.data.records import Prompt
from rlstack.evaluation.answering import answered_prompts
from rlstack.evaluation.answers import AnsweredPrompt
from rlstack.evaluation.task_measures import by_task, overall_accuracy, selection_value, task_measures
from rlstack.orchestration.engine_group import EngineGroup
from rlstack.orchestration.engine_seat import Sampling
from rlstack.orchestration.pending import PendingScores
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
        self._selection = evaluation.selection

    def run(self) -> dict[str, Any]:
        """The metrics eval/*, with the eval/version that they are of; {} without prompts."""
        return self.start().result()

    def start(self) -> Evaluation:
        """Ask for the answers, which come after all that the engines were asked for before."""
        places = [(0, position) for position in range(len(self._prompts))]
        answers = self._engines.submit(self._prompts, self._sampling, stream="evaluate", places=places)
        pending = PendingScores(self._prompts, answers, self._rewards, attend=self._engines.attend)
        return Evaluation(pending, self._rewards, self._selection)


class Evaluation:
    """Answers on their way to metrics."""

    def __init__(self, pending: PendingScores, rewards: Rewards, selection: Selection) -> None:
        self._pending = pending
        self._rewards = rewards
        self._selection = selection

    def result(self) -> dict[str, Any]:
        """See Evaluator.run; waits for the answers and their scores."""
        if not (scored := self._pending.scored()):
            return {}
        answered = answered_prompts(scored, self._rewards)
        return evaluation_metrics(answered, version=scored[0].group.step, selection=self._selection)


def evaluation_metrics(
    answered: Sequence[AnsweredPrompt], *, version: int, selection: Selection
) -> dict[str, float | None]:
    """What an evaluation is in metrics.jsonl: eval/{task}/{measure}, and the run's own few.

    eval/accuracy and its standard error are there if a task's reward gives verdicts, eval/selection if
    `evaluation.selection` can be told.
    """
    measures = {task: task_measures(of_task) for task, of_task in by_task(answered).items()}
    metrics: dict[str, float | None] = {"eval/version": version}
    if (accuracy := overall_accuracy(answered)) is not None:
        metrics |= {"eval/accuracy": accuracy[0], "eval/accuracy_stderr": accuracy[1]}
    if (value := selection_value(measures, selection)) is not None:
        metrics["eval/selection"] = value
    return metrics | {
        f"eval/{task}/{name}": value for task, of_task in measures.items() for name, value in of_task.items()
    }
