"""Layouts of the policy: who holds which layers, and what is refused."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlstack.config.machine import Machine
from rlstack.config.parallel import micro_batch_multiple, num_policy_ranks, policy_layers, stage_layers
from rlstack.config.schema import Policy, Precision, Recompute
from rlstack.config.validate_parallel import parallel_problems
from rlstack.policy.probe import probe_batches

GPUS = Machine(num_cores=8, num_gpus=8)


@dataclass(frozen=True)
class Shape:
    num_layers: int = 8
    num_heads: int = 8
    num_kv_heads: int = 4
    ffn_size: int = 64


def found(machine: Machine | None = None, **settings: object) -> list[str]:
    return list(parallel_problems(replace(Policy(model="m"), **settings), Shape(), machine))


@given(data=st.data(), num_stages=st.integers(1, 4), chunks_per_stage=st.integers(1, 3))
def test_chunks_go_round_the_stages_in_the_models_order(data, num_stages, chunks_per_stage) -> None:
    num_chunks = num_stages * chunks_per_stage
    sizes = data.draw(st.lists(st.integers(1, 5), min_size=num_chunks, max_size=num_chunks))
    stages = stage_layers(sum(sizes), num_stages=num_stages, chunks_per_stage=chunks_per_stage, sizes=sizes)
    assert [len(stage) for stage in stages] == [chunks_per_stage] * num_stages
    order = [stages[i % num_stages][i // num_stages] for i in range(num_chunks)]
    assert [len(chunk) for chunk in order] == sizes
    assert [layer for chunk in order for layer in chunk] == list(range(sum(sizes)))


def test_without_a_list_chunks_are_equal() -> None:
    policy = Policy(pipeline_parallel=2, virtual_pipeline=2, context_parallel=3)
    assert policy_layers(policy, 8) == [[range(0, 2), range(4, 6)], [range(2, 4), range(6, 8)]]
    assert num_policy_ranks(policy) == 6
    assert micro_batch_multiple(policy) == 2
    assert micro_batch_multiple(Policy(pipeline_parallel=2)) == 1


@pytest.mark.parametrize(
    "settings",
    [
        {"pipeline_parallel": 2, "virtual_pipeline": 2},
        {"pipeline_parallel": 2, "pipeline_layers": [3, 5]},
        {"pipeline_parallel": 3, "pipeline_layers": [3, 3, 2]},
        {"pipeline_parallel": 2, "virtual_pipeline": 2, "pipeline_layers": [1, 3, 3, 1]},
        {"pipeline_parallel": 2, "recompute": Recompute.full, "recompute_layers": 4},
        {"context_parallel": 3},
        {"tensor_parallel": 4, "context_parallel": 2, "sequence_parallel": True},
    ],
)
def test_layouts_that_work_are_accepted(settings) -> None:
    assert found(**settings) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tensor_parallel": 8}, "policy.tensor_parallel = 8: does not divide the model's 4 key-value heads"),
        ({"pipeline_parallel": 3}, "policy.pipeline_parallel = 3: does not divide the model's 8 layers"),
        (
            {"pipeline_parallel": 2, "virtual_pipeline": 3},
            "policy.pipeline_parallel x virtual_pipeline = 6: does not divide the model's 8 layers",
        ),
        (
            {"recompute_layers": 2, "recompute": Recompute.selective},
            "policy.recompute_layers = 2: null is accepted with policy.recompute = selective",
        ),
        (
            {"pipeline_parallel": 2, "recompute_layers": 5, "recompute": Recompute.full},
            "policy.recompute_layers = 5: at most 4 is accepted",
        ),
        ({"virtual_pipeline": 2}, "policy.virtual_pipeline = 2: 1 is accepted with policy.pipeline_parallel"),
        (
            {"pipeline_layers": [4, 4]},
            "policy.pipeline_layers = [4, 4]: 1 numbers are accepted",
        ),
        (
            {"pipeline_parallel": 2, "virtual_pipeline": 2, "pipeline_layers": [4, 4]},
            "policy.pipeline_layers = [4, 4]: 4 numbers are accepted",
        ),
        ({"pipeline_parallel": 2, "pipeline_layers": [0, 8]}, "numbers of at least 1 are accepted"),
        ({"pipeline_parallel": 2, "pipeline_layers": [4, 5]}, "sum to the model's 8 layers are accepted"),
        ({"sequence_parallel": True}, "policy.sequence_parallel = true: it splits sequences"),
    ],
)
def test_layouts_that_cannot_work_are_refused(settings, message) -> None:
    (problem,) = found(**settings)
    assert message in problem


def test_no_gpu_kernel_splits_sequences_in_fp32() -> None:
    (problem,) = found(GPUS, context_parallel=2)
    assert "policy.context_parallel = 2: 1 is accepted on GPUs with policy.precision = fp32" in problem
    assert found(GPUS, context_parallel=2, precision=Precision.bf16) == []
    assert found(Machine(num_cores=8, num_gpus=0), context_parallel=2) == []


@pytest.mark.parametrize(
    "policy", [Policy(), Policy(pipeline_parallel=2, virtual_pipeline=2, data_parallel=3)]
)
def test_a_probe_comes_first_and_fillers_make_up_the_rest(policy) -> None:
    ranks = probe_batches([5, 6, 7, 8], policy, version=4)
    assert len(ranks) == policy.data_parallel
    assert {len(batches) for batches in ranks} == {micro_batch_multiple(policy)}
    (first, *others) = [batch for batches in ranks for batch in batches]
    assert first.token_ids.tolist() == [5, 6, 7] and first.labels.tolist() == [6, 7, 8]
    assert [batch.num_examples for batch in others] == [0] * len(others)
