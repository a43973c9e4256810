"""What `rlstack score` prints of the rewards that it gave."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from rich.console import Console
from rich.table import Table

from rlstack.data.records import Outcome, Score
from rlstack.data.rows import Row
from rlstack.rewards.agreement import (
    Labelled,
    are_verdicts,
    disagreements,
    labelled_answers,
    ordered_share,
)
from rlstack.rewards.answer_file import Fields

SHOWN = 50  # disagreements, at most


class Results:
    """The scores of all responses, and those that have labels."""

    def __init__(self, fields: Fields) -> None:
        self._fields = fields
        self.scores: list[Score] = []
        self.labelled: list[Labelled] = []

    def add(self, row: Row, scores: Sequence[Score]) -> None:
        """The scores of the responses of `row`."""
        self.scores += scores
        self.labelled += labelled_answers(
            row.record, scores, index=row.index, answer_field=self._fields.answer
        )


def report(results: Results, *, num_new: int, spent_s: float, out: Path) -> None:
    """Print how many responses have which rewards, and how far these agree with the labels.

    num_new: of the responses, those that were scored in `spent_s` seconds.
    """
    console = Console(highlight=False, markup=False, soft_wrap=True)
    scores, labelled = results.scores, results.labelled
    rewards = [score.reward for score in scores if score.reward is not None]
    mean = f"mean reward {fmean(rewards):.4f}" if rewards else "no reward"
    counts = Counter(score.outcome for score in scores)
    troubles = [f"{counts[outcome]} {outcome.value}s" for outcome in (Outcome.timeout, Outcome.error)]
    if truncated := sum(score.truncated for score in scores):
        troubles.append(f"{truncated} truncated")
    if without := counts[Outcome.none]:
        troubles.append(f"{without} without a reward by choice")
    of_all = "" if num_new == len(scores) else f" of {len(scores)}"
    console.print(f"{num_new}{of_all} responses in {spent_s:.1f} s: {mean}, {', '.join(troubles)}")
    if labelled and are_verdicts(labelled):
        _report_verdicts(console, labelled)
    elif (share := ordered_share(labelled)) is not None:
        console.print(f"a correct response scores above an incorrect one to the same problem: {share:.1%}")
    console.print(f"written: {out}")


def _report_verdicts(console: Console, labelled: Sequence[Labelled]) -> None:
    others = disagreements(labelled)
    agreed = len(labelled) - len(others)
    console.print(f"agreement with the labels: {agreed} of {len(labelled)} ({agreed / len(labelled):.2%})")
    if not others:
        return
    table = Table("row", "response", "label", "reward", "gold answer", "answer given", box=None)
    for answer in others[:SHOWN]:
        reward = "none" if answer.reward is None else f"{answer.reward:g}"
        label = "correct" if answer.label else "incorrect"
        table.add_row(answer.row, str(answer.response), label, reward, answer.gold, answer.given)
    console.print(table)
    if len(others) > SHOWN:
        console.print(f"and {len(others) - SHOWN} more")
