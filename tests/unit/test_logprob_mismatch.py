"""Which logprobs the generator's are held against, and how."""

from __future__ import annotations

import math

import pytest
import torch

from rlstack.policy.mismatch import Author, author_of, difference


@pytest.mark.parametrize(
    ("rollout", "policy", "reference", "expected"),
    [
        (4, 4, None, Author.policy),
        (4, 4, 4, Author.policy),
        (4, 6, 4, Author.reference),
        (4, 6, None, None),
        (4, 6, 0, None),
    ],
)
def test_only_logprobs_of_the_same_version_are_compared(rollout, policy, reference, expected) -> None:
    author = author_of(rollout_version=rollout, policy_version=policy, reference_version=reference)
    assert author is expected


def test_difference_looks_at_sampled_tokens_only() -> None:
    ours, theirs = torch.tensor([-1.0, -2.0, -3.0]), torch.tensor([-9.0, -2.5, -2.0])
    found = difference(ours, theirs, torch.tensor([False, True, True]))
    assert (float(found.mean.total), int(found.mean.count), float(found.maximum)) == (1.5, 2, 1.0)


def test_difference_of_no_token_has_no_maximum() -> None:
    found = difference(torch.ones(2), torch.zeros(2), torch.zeros(2, dtype=torch.bool))
    assert (float(found.mean.total), int(found.mean.count), float(found.maximum)) == (0.0, 0, -math.inf)
