"""Files of given answers: rows with `problem`, `answer`, `responses` and perhaps labels, `correct`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TextIO

from rlstack.config.reward_names import needs_answer
from rlstack.data.gold import read_gold, text_or_number
from rlstack.data.records import Score
from rlstack.data.rows import Row, read_rows
from rlstack.errors import ConfigError
from rlstack.files import written_at_once
from rlstack.rewards.scorer import Question


def answered_rows(path: Path, *, reward: str) -> Iterator[tuple[Row, Question]]:
    """Each row of the file with what `reward` sees of it.

    Raises:
        ConfigError: the file cannot be read, or a row lacks what is needed; the message names the row.
    """
    for row in read_rows(path, where="FILE"):
        yield row, _question(row.record, reward=reward, at=row.at)


def _question(record: Mapping[str, Any], *, reward: str, at: str) -> Question:
    """The row's texts, the gold answer as `read_gold` has it.

    Raises:
        ConfigError: as `answered_rows`.
    """
    problem, answer, responses = (record.get(name) for name in ("problem", "answer", "responses"))
    if not isinstance(problem, str):
        raise ConfigError(f"{at}: `problem` must be a text; add it to the row.")
    answer = _gold(answer, at=at) if needs_answer(reward) else text_or_number(answer)
    if not isinstance(responses, list) or not all(isinstance(response, str) for response in responses):
        raise ConfigError(f"{at}: `responses` must be a list of texts, the answers to score.")
    labels = record.get("correct")
    if labels is not None and (not isinstance(labels, list) or len(labels) != len(responses)):
        raise ConfigError(f"{at}: `correct` must be a list with one label for each of `responses`.")
    return Question(problem=problem, answer=answer, responses=tuple(responses))


def _gold(value: object, *, at: str) -> str:
    try:
        return read_gold(value)
    except ValueError as error:
        raise ConfigError(
            f"{at}: `answer` must be a text or a number to compare with ({error}); add it to the row."
        ) from None


def with_rewards(record: Mapping[str, Any], scores: Sequence[Score]) -> dict[str, Any]:
    """The row with `rewards` (null where there is none) and `outcomes` (ok | timeout | error)."""
    return {
        **record,
        "rewards": [score.reward for score in scores],
        "outcomes": [score.outcome.value for score in scores],
    }


def to_line(record: Mapping[str, Any]) -> str:
    """The row as a line of JSON."""
    return json.dumps(record, ensure_ascii=False) + "\n"


@contextmanager
def rewarded_file(path: Path) -> Iterator[TextIO]:
    """The file to write such lines to; see files.written_at_once.

    Raises:
        ConfigError: it cannot be written there.
    """
    with ExitStack() as stack:
        try:
            file = stack.enter_context(written_at_once(path))
        except OSError as error:
            raise ConfigError(
                f"--out = {path}: {error.strerror}; give a file in a folder to write to"
            ) from None
        yield file
