"""The records that flow through the loop, in the order in which they come to be.

Prompt -> Rollout, RolloutGroup -> ScoredGroup
       -> PreferencePair | PreferenceGroup | WeightedRollout -> MicroBatch

Shapes: P prompt tokens, T tokens of a rollout or of a micro-batch, n rollouts per prompt, S sequences and
N pairs of a micro-batch. Log-probabilities are natural logarithms.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prompt:
    """One row of a dataset, ready for the generator; equal to another one with the same content."""

    task: str  # name of the task, `data.tasks[i].name`
    row: int  # line of the task's file, from 0
    problem: str  # the row's text, before the template
    token_ids: np.ndarray  # [P] int32, after the prompt template and the chat template; made of any sequence
    answer: str | None = None  # what a verifier compares with

    def __post_init__(self) -> None:
        object.__setattr__(self, "token_ids", np.asarray(self.token_ids, np.int32))

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Prompt)
            and (self.task, self.row, self.problem) == (other.task, other.row, other.problem)
            and self.answer == other.answer
            and np.array_equal(self.token_ids, other.token_ids)
        )

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """One sampled answer."""

    token_ids: tuple[int, ...]  # [T] the end token included, if it was sampled
    generator_logprobs: tuple[float, ...]  # [T] of the sampled tokens, before temperature and top-p
    text: str  # without the end token
    finished: bool  # False: cut off at rollout.max_new_tokens
    version: int  # optimiser steps taken by the weights that sampled it


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutGroup:
    """The n rollouts of one prompt, all of one version."""

    step: int  # the training step that they were sampled for
    prompt: Prompt
    rollouts: tuple[Rollout, ...]  # [n]


class Outcome(StrEnum):
    """How the scoring of one rollout ended."""

    ok = "ok"
    none = "none"  # a plug-in gave no reward, as it may
    timeout = "timeout"
    error = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """The reward of one rollout; `reward` is None unless the outcome is ok."""

    reward: float | None
    outcome: Outcome = Outcome.ok
    truncated: bool = False  # a reward model saw only the beginning of the answer


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredGroup:
    group: RolloutGroup
    scores: tuple[Score, ...]  # [n]


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferencePair:
    """A rollout that is to become likelier than another one of the same prompt."""

    prompt: Prompt
    chosen: Rollout
    rejected: Rollout


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightedRollout:
    """A rollout with its advantage."""

    prompt: Prompt
    rollout: Rollout
    advantage: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferenceGroup:
    """Rollouts of one prompt, all compared with each other; each is one sequence, however many its pairs."""

    prompt: Prompt
    rollouts: tuple[Rollout, ...]  # [n]
    pairs: tuple[tuple[int, int], ...]  # (chosen, rejected) as indices of rollouts
    advantages: tuple[float, ...]  # [n]


Example = PreferencePair | PreferenceGroup | WeightedRollout


@dataclass(frozen=True, slots=True, kw_only=True)
class MicroBatch:
    """Sequences packed end to end, without padding: what one forward and backward pass takes.

    A sequence is prompt + rollout without its last token; position i predicts labels[i], the token after it.
    `num_examples` is this micro-batch's share of the divisor of the step's loss: pairs, groups or weighted
    rollouts. The weights of an example's pairs sum to 1, and so do those of its rollouts.
    Examples whose loss is 0 whatever the policy is may count there and have no sequences (num_zero_examples).
    A filler (num_examples = 0, loss_mask all False) keeps data-parallel ranks in step.
    """

    token_ids: np.ndarray  # [T] int64
    labels: np.ndarray  # [T] int64
    loss_mask: np.ndarray  # [T] bool: the label is a sampled token
    generator_logprobs: np.ndarray  # [T] float32 of the labels, 0 where loss_mask is False
    sequence_starts: np.ndarray  # [S + 1] int32: offsets of the sequences; the last one is T
    pairs: np.ndarray  # [N, 2] int32: (chosen, rejected) as indices of sequences; N = 0 without pairs
    pair_weights: np.ndarray  # [N] float32: 1 / pairs of its example
    advantages: np.ndarray  # [S] float32; zeros with pairs that are not of a group
    rollout_weights: np.ndarray  # [S] float32: 1 / rollouts of its example; 0 in a filler
    num_examples: int
    version: int  # of the rollouts
    num_zero_examples: int = 0  # counted in the divisor besides num_examples
