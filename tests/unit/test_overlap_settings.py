"""When exchanges between data-parallel ranks overlap, and what is refused of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rlstack.config.overlap import Overlap, overlap_of, overlap_problems
from rlstack.config.schema import Policy


@pytest.mark.parametrize(
    ("settings", "on_gpu", "expected"),
    [
        ({}, True, (False, False)),
        ({"data_parallel": 2}, False, (False, False)),
        ({"data_parallel": 2}, True, (True, True)),
        ({"context_parallel": 2}, True, (True, True)),
        ({"data_parallel": 2, "overlap_grad_reduce": False}, True, (False, False)),
        ({"data_parallel": 2, "overlap_param_gather": False}, True, (True, False)),
        ({"data_parallel": 2, "overlap_grad_reduce": True}, False, (True, False)),
    ],
)
def test_null_is_on_with_gpus_and_several_replicas(settings, on_gpu, expected) -> None:
    policy = Policy(model="m", **settings)
    assert list(overlap_problems(policy)) == []
    grad_reduce, param_gather = expected
    assert overlap_of(policy, on_gpu=on_gpu) == Overlap(
        grad_reduce=grad_reduce, param_gather=param_gather, bucket_size=None
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"overlap_grad_reduce": True},
            "policy.overlap_grad_reduce = true: null or false is accepted with policy.data_parallel x "
            "context_parallel = 1",
        ),
        (
            {"data_parallel": 2, "overlap_param_gather": True, "overlap_grad_reduce": False},
            "policy.overlap_param_gather = true: null or false is accepted with policy.overlap_grad_reduce "
            "= false",
        ),
    ],
)
def test_overlap_without_anything_to_overlap_is_refused(settings, message) -> None:
    (found,) = overlap_problems(replace(Policy(model="m"), **settings))
    assert found.startswith(message)
