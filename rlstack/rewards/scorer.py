"""What every reward is to the rest of the project."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from rlstack.data.records import Score


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """The text of one prompt and of the answers to it: all that a reward sees."""

    problem: str  # before the prompt template
    answer: str | None  # the row's gold answer, if it has one
    responses: tuple[str, ...]  # [n]


class Scorer(Protocol):
    """A reward, running. May be called from several threads."""

    @property
    def depends_on_batch(self) -> bool:
        """Whether a score may change, in its last digits, with what is scored beside it."""
        ...

    @property
    def gives_verdicts(self) -> bool:
        """Whether every reward is 0 or 1, right or wrong, so that a task with this reward has an accuracy."""
        ...

    def score(self, questions: Sequence[Question]) -> list[tuple[Score, ...]]:
        """One score for each response of each question, in their order.

        A response that gets no reward has an outcome that says why. What no response could be scored without,
        a dead reward model for example, is an exception instead.
        """
        ...

    def close(self) -> None:
        """End what belongs to this reward alone."""
        ...


def regroup(scores: Iterable[Score], questions: Sequence[Question]) -> list[tuple[Score, ...]]:
    """Scores in the order of all responses, one tuple for each question."""
    left = iter(scores)
    grouped = [tuple(next(left) for _ in question.responses) for question in questions]
    assert next(left, None) is None
    return grouped
