"""Files of given answers: rows with a problem, an answer, `responses` and perhaps labels, `correct`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlstack.config.reward_names import RewardKind, kind_of, needs_answer
from rlstack.data.conversation import read_conversation
from rlstack.data.fields import ABSENT, field_value
from rlstack.data.gold import read_gold, text_or_number
from rlstack.data.json_lines import shorten
from rlstack.data.records import Outcome, Score
from rlstack.data.rows import Row, read_rows
from rlstack.errors import ConfigError
from rlstack.rewards.agreement import label_of
from rlstack.rewards.scorer import Question


@dataclass(frozen=True, slots=True, kw_only=True)
class Fields:
    """What a row calls the problem and its gold answer; a dot leads into a mapping."""

    problem: str = "problem"
    answer: str = "answer"


def answered_rows(path: Path, *, reward: str, fields: Fields) -> Iterator[tuple[Row, Question]]:
    """Each row of the file with what `reward` sees of it.

    Raises:
        ConfigError: the file cannot be read, or a row lacks what is needed; the message names the row.
    """
    for row in read_rows(path, where="FILE"):
        yield row, _question(row.record, reward=reward, fields=fields, at=row.at)


def _question(record: Mapping[str, Any], *, reward: str, fields: Fields, at: str) -> Question:
    """The row's texts, the gold answer as `read_gold` has it.

    Raises:
        ConfigError: as `answered_rows`.
    """
    problem = _problem(record, reward=reward, field=fields.problem, at=at)
    answer, responses = field_value(record, fields.answer), record.get("responses")
    answer = None if answer is ABSENT else answer
    gold = _gold(answer, field=fields.answer, at=at) if needs_answer(reward) else text_or_number(answer)
    if not isinstance(responses, list) or not all(isinstance(response, str) for response in responses):
        raise ConfigError(f"{at}: `responses` must be a list of texts, the answers to score.")
    _check_labels(record.get("correct"), len(responses), at=at)
    return Question(problem=problem, answer=gold, responses=tuple(responses))


def _gold(value: object, *, field: str, at: str) -> str:
    try:
        return read_gold(value)
    except ValueError as error:
        raise ConfigError(
            f"{at}: `{field}` must be a text or a number to compare with ({error}); add it to the row, or "
            "name another field as --answer-field."
        ) from None


def _problem(record: Mapping[str, Any], *, reward: str, field: str, at: str) -> str:
    """The row's problem, of a conversation the user's last turn; the math verifier has no need of it."""
    problem = field_value(record, field)
    with contextlib.suppress(ValueError):
        if turns := read_conversation(problem):
            return turns[-1]["content"]
    if isinstance(problem, str):
        return problem
    if kind_of(reward) is RewardKind.math:
        return ""
    raise ConfigError(
        f"{at}: `{field}` must be a text; add it to the row, or name another field as --problem-field."
    )


def _check_labels(labels: Any, num_responses: int, *, at: str) -> None:
    if labels is None:
        return
    if not isinstance(labels, list) or len(labels) != num_responses:
        raise ConfigError(f"{at}: `correct` must be a list with one label for each of `responses`.")
    for label in labels:
        if label_of(label) is None:
            raise ConfigError(
                f"{at}: `correct` has {shorten(repr(label))}; true, false, 1 or 0 is accepted as a label, or "
                'such a text, "yes" and "no" included.'
            )


def with_rewards(record: Mapping[str, Any], scores: Sequence[Score]) -> dict[str, Any]:
    """The row with `rewards` (null where there is none) and `outcomes` (ok | none | timeout | error).

    With `truncated` as well, one true or false for each, if a reward model saw only a part of an answer.
    """
    row = {
        **record,
        "rewards": [score.reward for score in scores],
        "outcomes": [score.outcome.value for score in scores],
    }
    if any(score.truncated for score in scores):
        row["truncated"] = [score.truncated for score in scores]
    return row


def scores_in(row: Mapping[str, Any]) -> list[Score]:
    """The scores of a row that `with_rewards` made; KeyError, TypeError or ValueError if it did not."""
    rewards, outcomes = row["rewards"], row["outcomes"]
    truncated = row.get("truncated")
    if not isinstance(truncated, list) or len(truncated) != len(rewards):
        truncated = [False] * len(rewards)
    return [
        Score(reward=reward, outcome=Outcome(outcome), truncated=cut is True)
        for reward, outcome, cut in zip(rewards, outcomes, truncated, strict=True)
    ]
