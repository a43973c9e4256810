"""Examples to packed micro-batches, balanced over the data-parallel ranks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import accumulate

import numpy as np

from rlstack.data.bins import Item, fill_bins
from rlstack.data.records import (
    Example,
    MicroBatch,
    PreferenceGroup,
    PreferencePair,
    Prompt,
    Rollout,
    WeightedRollout,
)


def pack(
    examples: Sequence[Example],
    *,
    data_parallel: int,
    micro_batch_tokens: int,
    version: int,
    cost: Callable[[int], float] = float,
    multiple: int = 1,
    has_zero_loss: Callable[[Example], bool] = lambda example: False,
) -> list[list[MicroBatch]]:
    """The micro-batches of one step as [data_parallel][m], the same m for every rank.

    An example is never split: the rollouts of a pair or of a group share a micro-batch. A micro-batch holds
    at most `micro_batch_tokens` tokens, unless it is one example that alone has more. Ranks and micro-batches
    get about equal costs; where examples are too few, fillers take the free places.

    Within a micro-batch examples keep the order in which they were given; a pair is its chosen sequence,
    then its rejected one. The result depends on nothing but the arguments.

    Args:
        examples: of one kind.
        version: of the rollouts.
        cost: of a sequence of so many tokens, in any unit; positive.
        multiple: m is one of it.
        has_zero_loss: whether an example counts in the divisor and is otherwise to be left out.

    Raises:
        ValueError: a rollout is of another version.
    """
    assert len({type(example) for example in examples}) <= 1, "examples of several kinds in one step"
    groups = [_as_group(example) for example in examples]
    found = {rollout.version for group in groups for rollout in group.rollouts}
    if not found <= {version}:
        raise ValueError(f"rollouts of versions {sorted(found)} are no batch of version {version}")
    groups = [group for group, example in zip(groups, examples, strict=True) if not has_zero_loss(example)]
    lengths = [_lengths(group) for group in groups]
    items = [Item(tokens=sum(of_one), cost=sum(map(cost, of_one))) for of_one in lengths]
    bins = fill_bins(items, num_ranks=data_parallel, capacity=micro_batch_tokens, multiple=multiple)
    packed = [
        [_micro_batch([groups[index] for index in contents], version=version) for contents in of_rank]
        for of_rank in bins
    ]
    packed[0][0] = replace(packed[0][0], num_zero_examples=len(examples) - len(groups))
    return packed


def _as_group(example: Example) -> PreferenceGroup:
    match example:
        case PreferencePair():
            return PreferenceGroup(
                prompt=example.prompt,
                rollouts=(example.chosen, example.rejected),
                pairs=((0, 1),),
                advantages=(0.0, 0.0),
            )
        case PreferenceGroup():
            return example
        case WeightedRollout():
            return PreferenceGroup(
                prompt=example.prompt, rollouts=(example.rollout,), pairs=(), advantages=(example.advantage,)
            )


def _lengths(group: PreferenceGroup) -> list[int]:
    """Tokens of its sequences."""
    return [len(group.prompt.token_ids) + len(rollout.token_ids) - 1 for rollout in group.rollouts]


def _micro_batch(groups: Sequence[PreferenceGroup], *, version: int) -> MicroBatch:
    if not groups:
        return _filler(version)
    sequences = [(group.prompt, rollout) for group in groups for rollout in group.rollouts]
    token_ids = [_joined(prompt, rollout) for prompt, rollout in sequences]
    num_prompt_labels = [len(prompt.token_ids) - 1 for prompt, _ in sequences]
    firsts = accumulate((len(group.rollouts) for group in groups), initial=0)
    return MicroBatch(
        token_ids=np.concatenate([tokens[:-1] for tokens in token_ids]),
        labels=np.concatenate([tokens[1:] for tokens in token_ids]),
        loss_mask=np.concatenate(
            [
                np.arange(len(tokens) - 1) >= skip
                for tokens, skip in zip(token_ids, num_prompt_labels, strict=True)
            ]
        ),
        generator_logprobs=np.concatenate(
            [
                np.array((0.0,) * skip + rollout.generator_logprobs, np.float32)
                for (_, rollout), skip in zip(sequences, num_prompt_labels, strict=True)
            ]
        ),
        sequence_starts=np.cumsum([0, *(len(tokens) - 1 for tokens in token_ids)], dtype=np.int32),
        pairs=np.array(
            [
                (first + chosen, first + rejected)
                for first, group in zip(firsts, groups, strict=False)
                for chosen, rejected in group.pairs
            ],
            np.int32,
        ).reshape(-1, 2),
        pair_weights=_shares([len(group.pairs) for group in groups]),
        advantages=np.array([advantage for group in groups for advantage in group.advantages], np.float32),
        rollout_weights=_shares([len(group.rollouts) for group in groups]),
        num_examples=len(groups),
        version=version,
    )


def _joined(prompt: Prompt, rollout: Rollout) -> np.ndarray:
    return np.concatenate([prompt.token_ids, rollout.token_ids], dtype=np.int64)


def _shares(counts: Sequence[int]) -> np.ndarray:
    """1 / count, count times for each of `counts`, as float32."""
    return np.array([1 / count for count in counts for _ in range(count)], np.float32)


def _filler(version: int) -> MicroBatch:
    """One token that no loss looks at: the least that a forward and backward pass takes."""
    return MicroBatch(
        token_ids=np.zeros(1, np.int64),
        labels=np.zeros(1, np.int64),
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
