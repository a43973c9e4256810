"""Rewards of given answers against labels that came with them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby, product
from statistics import fmean
from typing import Any, NamedTuple

from rlstack.data.boxed import boxed_answer
from rlstack.data.fields import ABSENT, field_value
from rlstack.data.records import Score

LABELS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
MAX_CHARS = 60  # of an answer that is kept to be shown


class Labelled(NamedTuple):
    """One answer with its label and its reward."""

    row_index: int  # from 0
    row: str  # the row's id, or its number from 0
    response: int  # from 0
    label: bool  # correct
    reward: float | None
    gold: str
    given: str  # what is in the answer's box, or its end


def label_of(value: Any) -> bool | None:
    """Whether a label says that its answer is correct; None for what is no label.

    True, false, 1 and 0 are labels, and as texts also yes and no, in any letter case.
    """
    text = value.strip().lower() if isinstance(value, str) else value
    if isinstance(text, bool | int | float):
        return bool(text) if text in (0, 1) else None
    return LABELS.get(text) if isinstance(text, str) else None


def labelled_answers(
    record: Mapping[str, Any], scores: Sequence[Score], *, index: int, answer_field: str = "answer"
) -> list[Labelled]:
    """The answers of one row, which is row `index`; empty if the row has no labels.

    The labels are such as `label_of` takes.
    """
    if record.get("correct") is None:
        return []
    name, gold = record.get("id"), field_value(record, answer_field)
    return [
        Labelled(
            row_index=index,
            row=str(index if name is None else name),
            response=i,
            label=bool(label_of(label)),
            reward=score.reward,
            gold="" if gold is ABSENT else _shorten(str(gold)),
            given=_shorten(boxed_answer(response) or response),
        )
        for i, (label, score, response) in enumerate(
            zip(record["correct"], scores, record["responses"], strict=True)
        )
    ]


def are_verdicts(answers: Sequence[Labelled]) -> bool:
    """Whether every reward is 0 or 1, so that it can equal a label."""
    return {answer.reward for answer in answers} <= {0.0, 1.0, None}


def disagreements(answers: Sequence[Labelled]) -> list[Labelled]:
    """Verdicts that are not the label; an answer without a reward agrees with none."""
    return [answer for answer in answers if answer.reward != float(answer.label)]


def ordered_share(answers: Sequence[Labelled]) -> float | None:
    """How often a correct answer scores higher than an incorrect one to the same row.

    The share of all such pairs; ties count half, and 0.5 is what chance gets. None without a pair.
    """
    wins = [
        (right > wrong) + (right == wrong) / 2
        for _, of_row in groupby(answers, key=lambda answer: answer.row_index)
        for right, wrong in _pairs(list(of_row))
    ]
    return fmean(wins) if wins else None


def _pairs(of_row: Sequence[Labelled]) -> product[tuple[float, float]]:
    right = [answer.reward for answer in of_row if answer.label and answer.reward is not None]
    wrong = [answer.reward for answer in of_row if not answer.label and answer.reward is not None]
    return product(right, wrong)


def _shorten(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= MAX_CHARS else f"...{text[-MAX_CHARS:]}"
