"""Examples to packed micro-batches, balanced over the data-parallel ranks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from rlstack.data.bins import Item, fill_bins
from rlstack.data.records import MicroBatch, TrainingExample


def pack(
    examples: Sequence[TrainingExample],
    *,
    data_parallel: int,
    micro_batch_tokens: int,
    version: int,
    cost: Callable[[int], float] = float,
    multiple: int = 1,
    has_zero_loss: Callable[[TrainingExample], bool] = lambda example: False,
) -> list[list[MicroBatch]]:
    """The micro-batches of one step as [data_parallel][m], the same m for every rank.

    An example is never split: the rollouts of a pair or of a group share a micro-batch. A micro-batch holds
    at most `micro_batch_tokens` tokens, unless it is one example that alone has more. Ranks and micro-batches
    get about equal costs; where examples are too few, fillers take the free places.

    Within a micro-batch examples keep the order in which they were given; a pair is its chosen sequence,
    then its rejected one. The result depends on nothing but the arguments.

    Args:
        examples: of one objective.
        version: of the rollouts.
        cost: of a sequence of so many tokens, in any unit; positive.
        multiple: m is one of it.
        has_zero_loss: whether an example counts in the divisor and is otherwise to be left out.

    Raises:
        ValueError: a rollout is of another version.
    """
    assert len({bool(example.pairs) for example in examples}) <= 1, "examples of several kinds in one step"
    found = {rollout.version for example in examples for rollout in example.rollouts}
    if not found <= {version}:
        raise ValueError(f"rollouts of versions {sorted(found)} are no batch of version {version}")
    trained = [example for example in examples if not has_zero_loss(example)]
    lengths = [_lengths(example) for example in trained]
    items = [Item(tokens=sum(of_one), cost=sum(map(cost, of_one))) for of_one in lengths]
    bins = fill_bins(items, num_ranks=data_parallel, capacity=micro_batch_tokens, multiple=multiple)
    packed = [
        [_micro_batch([trained[index] for index in contents], version=version) for contents in of_rank]
        for of_rank in bins
    ]
    packed[0][0] = replace(packed[0][0], num_zero_examples=len(examples) - len(trained))
    return packed


def _lengths(example: TrainingExample) -> list[int]:
    """Tokens of its sequences."""
    num_prompt = len(example.prompt.token_ids)
    return [num_prompt + len(rollout.token_ids) - 1 for rollout in example.rollouts]


def _micro_batch(examples: Sequence[TrainingExample], *, version: int) -> MicroBatch:
    if not examples:
        return _filler(version)
    starts = np.cumsum([0, *(length for example in examples for length in _lengths(example))], dtype=np.int32)
    batch = MicroBatch(
        token_ids=np.empty(starts[-1], np.int32),
        labels=np.empty(starts[-1], np.int32),
        loss_mask=np.zeros(starts[-1], np.bool_),
        generator_logprobs=np.zeros(starts[-1], np.float32),
        sequence_starts=starts,
        pairs=_pairs(examples),
        pair_weights=_shares([len(example.pairs) for example in examples]),
        advantages=np.array([value for example in examples for value in example.advantages], np.float32),
        rollout_weights=_shares([len(example.rollouts) for example in examples]),
        num_examples=len(examples),
        version=version,
    )
    _copy_tokens(examples, batch)
    return batch


def _copy_tokens(examples: Sequence[TrainingExample], batch: MicroBatch) -> None:
    """Write the examples' tokens into the arrays of `batch`, one sequence after the other."""
    start = 0
    for example in examples:
        prompt = example.prompt.token_ids
        for rollout in example.rollouts:
            answer = start + len(prompt)  # place of the first sampled token; its label is one before
            end = answer + len(rollout.token_ids) - 1
            batch.token_ids[start:answer] = prompt
            batch.token_ids[answer:end] = rollout.token_ids[:-1]
            batch.labels[start : answer - 1] = prompt[1:]
            batch.labels[answer - 1 : end] = rollout.token_ids
            batch.loss_mask[answer - 1 : end] = True
            batch.generator_logprobs[answer - 1 : end] = rollout.generator_logprobs
            start = end


def _pairs(examples: Sequence[TrainingExample]) -> np.ndarray:
    """[N, 2] int32: the examples' pairs as indices of the micro-batch's sequences."""
    firsts = np.cumsum([0, *(len(example.rollouts) for example in examples)]).tolist()
    pairs = [
        (first + chosen, first + rejected)
        for first, example in zip(firsts, examples, strict=False)
        for chosen, rejected in example.pairs
    ]
    return np.array(pairs, np.int32).reshape(-1, 2)


def _shares(counts: Sequence[int]) -> np.ndarray:
    """1 / count, count times for each of `counts`, as float32."""
    return np.array([1 / count for count in counts for _ in range(count)], np.float32)


def _filler(version: int) -> MicroBatch:
    """One token that no loss looks at: the least that a forward and backward pass takes."""
    return MicroBatch(
        token_ids=np.zeros(1, np.int32),
        labels=np.zeros(1, np.int32),
        loss_mask=np.zeros(1, np.bool_),
        generator_logprobs=np.zeros(1, np.float32),
        sequence_starts=np.array([0, 1], np.int32),
        pairs=np.zeros((0, 2), np.int32),
        pair_weights=np.zeros(0, np.float32),
        advantages=np.zeros(1, np.float32),
        rollout_weights=np.zeros(1, np.float32),
        num_examples=0,
        version=version,
    )
