"""The records that flow through the loop, in the order in which they come to be.

Prompt -> Rollout, RolloutGroup -> ScoredGroup -> TrainingExample -> MicroBatch

Token ids are int32 and log-probabilities float32, in numpy arrays, from the engine to the trainer's ranks.
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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rollout:
    """One sampled answer; equal to another one with the same content. Sequences become arrays."""

    token_ids: np.ndarray  # [T] int32, the end token included, if it was sampled
    generator_logprobs: np.ndarray  # [T] float32 of the sampled tokens, before temperature and top-p
    text: str  # without the end token
    finished: bool  # False: cut off at rollout.max_new_tokens
    version: int  # optimiser steps taken by the weights that sampled it

    def __post_init__(self) -> None:
        object.__setattr__(self, "token_ids", np.asarray(self.token_ids, np.int32))
        object.__setattr__(self, "generator_logprobs", np.asarray(self.generator_logprobs, np.float32))

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Rollout)
            and (self.text, self.finished, self.version) == (other.text, other.finished, other.version)
            and np.array_equal(self.token_ids, other.token_ids)
            and np.array_equal(self.generator_logprobs, other.generator_logprobs)
        )

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[object, ...]:
        # As bytes: Ray would keep arrays in its shared memory for as long as the rollout waits.
        arrays = self.token_ids.tobytes(), self.generator_logprobs.tobytes()
        return _unpickled_rollout, (*arrays, self.text, self.finished, self.version)


def _unpickled_rollout(token_ids: bytes, logprobs: bytes, text: str, finished: bool, version: int) -> Rollout:
    return Rollout(
        token_ids=np.frombuffer(token_ids, np.int32),
        generator_logprobs=np.frombuffer(logprobs, np.float32),
        text=text,
        finished=finished,
        version=version,
    )


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
class TrainingExample:
    """Rollouts of one prompt that the loss takes together; each is one sequence, however many its pairs.

    Under DPO one pair of rollouts, under GroupDPO a group with all its pairs, under GRPO one rollout.
    """

    prompt: Prompt
    rollouts: tuple[Rollout, ...]  # [n]
    rewards: tuple[float, ...]  # [n] as they were compared, with a penalty of objective.cut_off
    pairs: tuple[tuple[int, int], ...]  # (chosen, rejected) as indices of rollouts; () without pairs
    advantages: tuple[float, ...]  # [n]; zeros for a single pair

    @classmethod
    def of_pair(
        cls,
        *,
        prompt: Prompt,
        chosen: Rollout,
        rejected: Rollout,
        rewards: tuple[float, float] = (1.0, 0.0),
    ) -> TrainingExample:
        """A pair; rewards: of the chosen and of the rejected rollout."""
        return cls(
            prompt=prompt,
            rollouts=(chosen, rejected),
            rewards=rewards,
            pairs=((0, 1),),
            advantages=(0.0, 0.0),
        )

    @classmethod
    def of_rollout(
        cls, *, prompt: Prompt, rollout: Rollout, advantage: float, reward: float = 0.0
    ) -> TrainingExample:
        """One rollout with its advantage."""
        return cls(prompt=prompt, rollouts=(rollout,), rewards=(reward,), pairs=(), advantages=(advantage,))


@dataclass(frozen=True, slots=True, kw_only=True)
class MicroBatch:
    """Sequences packed end to end, without padding: what one forward and backward pass takes.

    A sequence is prompt + rollout without its last token; position i predicts labels[i], the token after it.
    `num_examples` is this micro-batch's share of the divisor of the step's loss: pairs, groups or single
    rollouts. The weights of an example's pairs sum to 1, and so do those of its rollouts.
    Examples whose loss is 0 whatever the policy is may count there and have no sequences (num_zero_examples).
    A filler (num_examples = 0, loss_mask all False) keeps data-parallel ranks in step.
    """

    token_ids: np.ndarray  # [T] int32
    labels: np.ndarray  # [T] int32
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
