from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlstack.data.packing import pack
from rlstack.data.records import MicroBatch, Prompt, Rollout, TrainingExample

tokens = st.lists(st.integers(0, 99), min_size=1, max_size=12).map(tuple)
prompts = tokens.map(lambda ids: Prompt(task="a", row=0, problem="", token_ids=ids))
rollouts = tokens.map(
    lambda ids: Rollout(
        token_ids=ids,
        generator_logprobs=tuple(-1.0 - token for token in ids),
        text="",
        finished=True,
        version=3,
    )
)
pairs = st.builds(TrainingExample.of_pair, prompt=prompts, chosen=rollouts, rejected=rollouts)
weighted = st.builds(
    TrainingExample.of_rollout, prompt=prompts, rollout=rollouts, advantage=st.floats(-2, 2, width=32)
)


@st.composite
def preference_groups(draw: st.DrawFn) -> TrainingExample:
    of_group = draw(st.lists(rollouts, min_size=2, max_size=5))
    num_chosen = draw(st.integers(1, len(of_group) - 1))
    return TrainingExample(
        prompt=draw(prompts),
        rollouts=tuple(of_group),
        rewards=tuple(float(i < num_chosen) for i in range(len(of_group))),
        pairs=tuple((c, r) for c in range(num_chosen) for r in range(num_chosen, len(of_group))),
        advantages=tuple(draw(st.floats(-2, 2, width=32)) for _ in of_group),
    )


steps = (
    st.lists(pairs, max_size=20)
    | st.lists(weighted, max_size=20)
    | st.lists(preference_groups(), max_size=10)
)
layouts = {"data_parallel": st.integers(1, 4), "budget": st.integers(1, 80)}
multiples = st.integers(1, 4)


def quadratic(num_tokens: int) -> float:
    return num_tokens + 0.1 * num_tokens**2


Sequence_ = tuple[tuple[int, ...], tuple[int, ...], tuple[float, ...]]


def expected_sequence(example: TrainingExample, rollout: Rollout) -> Sequence_:
    read = (tuple(rollout.token_ids.tolist()), tuple(rollout.generator_logprobs.tolist()))
    return tuple(example.prompt.token_ids.tolist()), *read


def sequences(batch: MicroBatch) -> list[Sequence_]:
    """(prompt, rollout, generator_logprobs) of each sequence; checks what labels and mask must be."""
    result = []
    for start, end in zip(batch.sequence_starts[:-1], batch.sequence_starts[1:], strict=True):
        ids, labels, mask = (x[start:end] for x in (batch.token_ids, batch.labels, batch.loss_mask))
        assert (ids[1:] == labels[:-1]).all()
        num_prompt = int((~mask).sum()) + 1
        assert not mask[: num_prompt - 1].any() and mask[num_prompt - 1 :].all()
        logprobs = batch.generator_logprobs[start:end]
        assert not logprobs[~mask].any()
        result.append(
            (tuple(ids[:num_prompt].tolist()), tuple(labels[mask].tolist()), tuple(logprobs[mask].tolist()))
        )
    return result


def terms_of(batch: MicroBatch) -> list[tuple[object, ...]]:
    """What a loss is made of: pairs of sequences with their weight, sequences with advantage and weight."""
    if batch.num_examples == 0:
        assert not batch.loss_mask.any() and len(batch.token_ids) == batch.sequence_starts[-1] > 0
        assert not batch.pairs.size and not batch.rollout_weights.any()
        return []
    read = sequences(batch)
    paired = [
        (read[chosen], read[rejected], weight)
        for (chosen, rejected), weight in zip(batch.pairs, batch.pair_weights.tolist(), strict=True)
    ]
    return paired + list(zip(read, batch.advantages.tolist(), batch.rollout_weights.tolist(), strict=True))


def expected_terms(example: TrainingExample) -> list[tuple[object, ...]]:
    read = [expected_sequence(example, rollout) for rollout in example.rollouts]
    weight, share = (float(np.float32(1 / (len(x) or 1))) for x in (example.pairs, read))
    paired = [(read[chosen], read[rejected], weight) for chosen, rejected in example.pairs]
    return paired + [(*both, share) for both in zip(read, example.advantages, strict=True)]


@given(examples=steps, **layouts)
def test_every_example_is_packed_once_with_its_labels_and_mask(
    examples: list[TrainingExample], data_parallel: int, budget: int
) -> None:
    ranks = pack(examples, data_parallel=data_parallel, micro_batch_tokens=budget, version=3)
    batches = [batch for rank in ranks for batch in rank]
    found = sorted((term for batch in batches for term in terms_of(batch)), key=repr)
    assert found == sorted((term for example in examples for term in expected_terms(example)), key=repr)
    assert sum(batch.num_examples for batch in batches) == len(examples)
    for batch in batches:
        assert sum(batch.rollout_weights) == pytest.approx(batch.num_examples)
        if batch.pairs.size:
            assert sum(batch.pair_weights) == pytest.approx(batch.num_examples)
    assert all(batch.version == 3 for batch in batches)


@given(examples=steps, multiple=multiples, **layouts)
def test_ranks_have_equally_many_micro_batches_within_the_budget(
    examples: list[TrainingExample], data_parallel: int, budget: int, multiple: int
) -> None:
    ranks = pack(
        examples,
        data_parallel=data_parallel,
        micro_batch_tokens=budget,
        version=3,
        cost=quadratic,
        multiple=multiple,
    )
    assert len(ranks) == data_parallel
    assert len({len(rank) for rank in ranks}) == 1 and len(ranks[0]) >= 1
    assert len(ranks[0]) % multiple == 0
    for batch in (batch for rank in ranks for batch in rank):
        assert len(batch.token_ids) <= budget or batch.num_examples == 1


@given(examples=steps, **layouts)
def test_shapes_and_dtypes_are_those_of_the_record(
    examples: list[TrainingExample], data_parallel: int, budget: int
) -> None:
    ranks = pack(examples, data_parallel=data_parallel, micro_batch_tokens=budget, version=3)
    for batch in (batch for rank in ranks for batch in rank):
        per_token = (batch.token_ids, batch.labels, batch.loss_mask, batch.generator_logprobs)
        assert {x.shape for x in per_token} == {(batch.sequence_starts[-1],)}
        assert [x.dtype for x in per_token] == [np.int32, np.int32, np.bool_, np.float32]
        assert batch.sequence_starts.dtype == batch.pairs.dtype == np.int32
        per_sequence = (batch.advantages, batch.rollout_weights)
        assert {x.shape for x in per_sequence} == {(len(batch.sequence_starts) - 1,)}
        assert {x.dtype for x in (*per_sequence, batch.pair_weights)} == {np.dtype(np.float32)}
        assert batch.pairs.shape == (len(batch.pair_weights), 2)


def rollouts_of(lengths: Sequence[int]) -> list[TrainingExample]:
    prompt = Prompt(task="a", row=0, problem="", token_ids=(1,))
    return [
        TrainingExample.of_rollout(
            prompt=prompt,
            rollout=Rollout(
                token_ids=(2,) * n, generator_logprobs=(0.0,) * n, text="", finished=True, version=0
            ),
            advantage=float(i),
        )
        for i, n in enumerate(lengths)
    ]


@pytest.mark.parametrize("budget", [64, 10_000])
def test_ranks_get_about_equal_numbers_of_tokens(budget: int) -> None:
    lengths = [5, 60, 17, 33, 8, 41, 26, 12, 55, 3, 29, 48]
    ranks = pack(rollouts_of(lengths), data_parallel=3, micro_batch_tokens=budget, version=0)
    loads = [sum(len(batch.token_ids) for batch in rank) for rank in ranks]
    assert max(loads) - min(loads) < 0.1 * sum(lengths) / 3


def test_examples_keep_their_order_within_a_micro_batch() -> None:
    ((batch,),) = pack(rollouts_of([3, 9, 1, 5]), data_parallel=1, micro_batch_tokens=100, version=0)
    assert batch.advantages.tolist() == [0, 1, 2, 3]


@given(examples=st.lists(weighted, max_size=20), **layouts)
def test_examples_without_a_loss_count_and_take_no_place(
    examples: list[TrainingExample], data_parallel: int, budget: int
) -> None:
    def is_zero(example: TrainingExample) -> bool:
        return example.advantages[0] < 0

    sizes = {"data_parallel": data_parallel, "micro_batch_tokens": budget, "version": 3}
    found = pack(examples, has_zero_loss=is_zero, **sizes)
    batches = [batch for rank in found for batch in rank]
    assert sum(batch.num_examples + batch.num_zero_examples for batch in batches) == len(examples)
    assert all(batch.num_zero_examples == 0 for batch in batches[1:])
    kept = pack([example for example in examples if not is_zero(example)], **sizes)
    for batch, other in zip(batches, [batch for rank in kept for batch in rank], strict=True):
        np.testing.assert_equal(asdict(replace(batch, num_zero_examples=0)), asdict(other))


def test_a_rollout_of_another_version_is_refused_with_or_without_a_loss() -> None:
    with pytest.raises(ValueError, match=r"versions \[0\] are no batch of version 1"):
        pack(
            rollouts_of([3]),
            data_parallel=1,
            micro_batch_tokens=9,
            version=1,
            has_zero_loss=lambda example: True,
        )


def test_a_rollout_of_another_version_is_refused() -> None:
    with pytest.raises(ValueError, match=r"versions \[0\] are no batch of version 1"):
        pack(rollouts_of([3]), data_parallel=1, micro_batch_tokens=100, version=1)


def test_kinds_of_examples_are_not_mixed() -> None:
    (single,) = rollouts_of([3])
    pair = TrainingExample.of_pair(
        prompt=single.prompt, chosen=single.rollouts[0], rejected=single.rollouts[0]
    )
    with pytest.raises(AssertionError, match="several kinds"):
        pack([single, pair], data_parallel=1, micro_batch_tokens=100, version=0)
