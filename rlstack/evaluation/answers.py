"""A prompt with its answers, as the measures take it and as answers.jsonl keeps it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from rlstack.data.records import Outcome, Prompt, RolloutGroup, Score


@dataclass(frozen=True, slots=True, kw_only=True)
class AnsweredPrompt:
    """One line of answers.jsonl; `rlstack score` reads such lines too.

    `rewards` and `outcomes` are empty where a judge is to score the answers, not a reward.
    """

    task: str
    row: int  # line of the task's file, from 0
    problem: str
    answer: str | None  # what a verifier compares with
    responses: tuple[str, ...]  # [n] without the end token
    rewards: tuple[float | None, ...]  # [n] None unless the outcome is ok
    outcomes: tuple[Outcome, ...]  # [n]
    lengths_tokens: tuple[int, ...]  # [n] the end token included
    finished: tuple[bool, ...]  # [n] False: cut off at rollout.max_new_tokens
    verdicts: bool = False  # the task's reward gives verdicts: see rewards.scorer.Scorer

    @classmethod
    def of(cls, group: RolloutGroup, scores: Iterable[Score], *, verdicts: bool = False) -> AnsweredPrompt:
        """The group's prompt and rollouts with their scores, and whether these are verdicts."""
        prompt, rollouts, scores = group.prompt, group.rollouts, list(scores)
        return cls(
            task=prompt.task,
            row=prompt.row,
            problem=prompt.problem,
            answer=prompt.answer,
            responses=tuple(rollout.text for rollout in rollouts),
            rewards=tuple(score.reward for score in scores),
            outcomes=tuple(score.outcome for score in scores),
            lengths_tokens=tuple(len(rollout.token_ids) for rollout in rollouts),
            finished=tuple(rollout.finished for rollout in rollouts),
            verdicts=verdicts,
        )

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> AnsweredPrompt:
        """The record of one line of answers.jsonl; KeyError, ValueError or TypeError if it is not of ours.

        A line without `verdicts` is judged by its rewards.
        """
        if "verdicts" not in row:
            row = {**row, "verdicts": set(row["rewards"]) <= {0.0, 1.0, None}}
        values: dict[str, Any] = {
            field.name: tuple(value) if isinstance(value := row[field.name], list) else value
            for field in fields(cls)
        }
        return cls(**values | {"outcomes": tuple(Outcome(outcome) for outcome in row["outcomes"])})

    def to_row(self) -> dict[str, Any]:
        """The record as one line of answers.jsonl."""
        return asdict(self)

    def answers(self, prompt: Prompt) -> bool:
        """Whether these are answers to `prompt`, not to what its file said at another time."""
        return (self.task, self.row, self.problem, self.answer) == (
            prompt.task,
            prompt.row,
            prompt.problem,
            prompt.answer,
        )
