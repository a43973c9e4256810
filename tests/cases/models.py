"""Cases of reward models, of what is measured, and of loggers."""

from __future__ import annotations

import random
from collections.abc import Sequence

from rlstack.config.schema import RewardEngine
from rlstack.config.schema import RewardModel as Settings
from rlstack.data.records import Outcome as Ended
from rlstack.evaluation.answers import AnsweredPrompt
from rlstack.evaluation.task_measures import task_measures
from rlstack.rewards.conversations import ConversationTokenizer
from rlstack.rewards.scorer import Question
from rlstack.telemetry.loggers.to_mlflow import ambiguous, metric_name
from tests.cases.case import ROOT, Case, Outcome

JUDGE = ROOT / "configs" / "tiny" / "reward_model"


def equal_answers(case: Case) -> Outcome:
    """How many different rewards each of 8 prompts with 8 equal answers has."""
    from rlstack.rewards.reward_model import RewardModel

    words, draw = ["good", "bad", "thanks", "book", "letter", "I", "we"], random.Random(0)

    def text() -> str:
        return " ".join(draw.choices(words, k=draw.randint(3, 30)))

    settings = Settings(name="j", path=str(JUDGE), engine=RewardEngine.transformers, batch_tokens=512)
    questions = [Question(problem=text(), answer=None, responses=(text(),) * 8) for _ in range(8)]
    scores = RewardModel(settings).score(questions)
    return {"num_rewards": [len({score.reward for score in of_prompt}) for of_prompt in scores]}


def written_tokens(case: Case) -> Outcome:
    """How many control tokens of the reward model each answer's conversation has, beside an empty one."""
    tokenizer = ConversationTokenizer(JUDGE, max_tokens=10**6)
    responses = (*case.input["responses"], "")
    question = Question(problem=case.input["problem"], answer=None, responses=responses)
    counts = [_num_control(each.token_ids) for each in tokenizer.conversations([question])]
    return {"num_more_control_tokens": [count - counts[-1] for count in counts[:-1]]}


def _num_control(token_ids: Sequence[int]) -> int:
    from transformers import AutoTokenizer

    added = AutoTokenizer.from_pretrained(JUDGE).added_tokens_decoder
    control = {token for token, what in added.items() if what.special}
    return sum(token in control for token in token_ids)


def measured(case: Case) -> Outcome:
    """The names of the measures of each version of a task, whose answers have these rewards."""
    return {"measures": [sorted(task_measures([_answered(rewards)])) for rewards in case.input["versions"]]}


def _answered(rewards: Sequence[float]) -> AnsweredPrompt:
    n = len(rewards)
    return AnsweredPrompt(
        task="notes",
        row=0,
        problem="a",
        answer=None,
        responses=("b",) * n,
        rewards=tuple(rewards),
        outcomes=(Ended.ok,) * n,
        lengths_tokens=(3,) * n,
        finished=(True,) * n,
    )


def logged_names(case: Case) -> Outcome:
    """What MLflow calls the rewards of these tasks."""
    names = case.input.get("tasks", ["a(1)", "a[1]"])
    doubtful = ambiguous(names)
    return {"num_names": len({metric_name(f"reward/mean/{name}", doubtful) for name in names})}
