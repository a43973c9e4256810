"""Logits at which sloppier formulas lose their digits or overflow."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from tests.kernels.oracle import (
    backends,
    check,
    exact_case,
    expected,
    found,
    half_gradient,
    make_case,
    modes,
    shifted,
)


@backends
@modes
@pytest.mark.parametrize("offset", [-1e4, -200.0, 200.0, 1e4])
def test_an_offset_costs_no_digits(offset: float, mode: str, backend: tuple[str, str]) -> None:
    case = shifted(exact_case(17, 33, 333), offset)
    check(found(case, mode, backend), expected(case), scaled=False)


@backends
@modes
def test_large_logits(mode: str, backend: tuple[str, str]) -> None:
    """|z| up to 1e4 in bf16: nearly every row is one-hot, the rows of small hidden states are not."""
    case = make_case(17, 33, 333, scale=2500.0, dtype=torch.bfloat16)
    case.hidden[::4] /= 1024
    wanted = expected(case)
    assert wanted.logit_max > 8e3 and (wanted.entropy > 0.1).sum() >= 5
    check(found(case, mode, backend), wanted, gradient=half_gradient(backend))


@backends
@modes
def test_one_hot_rows(mode: str, backend: tuple[str, str]) -> None:
    """On the top token nothing can be gained, on another one the loss is the logits' distance."""
    case = make_case(6, 4, 129)
    case.hidden.zero_()[:, 0] = 1.0
    case.weight.zero_()[77, 0] = 500.0
    case.labels.copy_(torch.tensor([77, 77, 77, 0, 78, 128]))
    outcome = found(case, mode, backend)
    assert outcome.logprobs.tolist() == [0.0] * 3 + [-500.0] * 3
    assert not outcome.entropy.any() and not outcome.hidden_grad[:3].any()
    torch.testing.assert_close(outcome.hidden_grad[3:, 0], -500.0 * case.logprob_slopes[3:])


@backends
@modes
@pytest.mark.parametrize("vocab", [1, 7, 333])
def test_uniform_rows(vocab: int, mode: str, backend: tuple[str, str]) -> None:
    case = make_case(5, 8, vocab)
    case.hidden.zero_()
    outcome = found(case, mode, backend)
    assert outcome.entropy.tolist() == pytest.approx([math.log(vocab)] * 5, abs=1e-6)
    assert outcome.logprobs.tolist() == pytest.approx([-math.log(vocab)] * 5, abs=1e-6)
    check(outcome, expected(case))


@backends
@modes
def test_nan_stays_in_its_row(mode: str, backend: tuple[str, str]) -> None:
    case = make_case(9, 21, 333)
    clean = found(case, mode, backend)
    hidden = case.hidden.clone()
    hidden[4, 3] = math.nan
    outcome = found(replace(case, hidden=hidden), mode, backend)
    others = torch.arange(9) != 4
    for spoilt, wanted in zip(outcome[:3], clean[:3], strict=True):
        assert spoilt[4].isnan().all()
        assert torch.equal(spoilt[others], wanted[others])


@backends
@modes
def test_a_shard_of_logits_far_below_the_maximum_counts_for_nothing(
    mode: str, backend: tuple[str, str]
) -> None:
    """Blocks and tiles whose largest exponential underflows against the row's."""
    case = make_case(5, 8, 2500)
    case.hidden[:, 0] = 1.0
    case.weight[:1200, 0] = -400.0
    case.labels.copy_(torch.tensor([0, 1199, 1200, 2000, 2499]))
    check(found(case, mode, backend), expected(case))
