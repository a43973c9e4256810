"""One test for each fault that is known of other implementations of the same operator."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from rlstack_kernels import blockwise
from rlstack_kernels.blockwise import Sizes

from tests.kernels.oracle import (
    backends,
    check,
    expected,
    found,
    half_gradient,
    make_case,
    modes,
    relative_error,
    shifted,
)


@backends
@pytest.mark.parametrize("offset", [0.0, -20.0])
def test_no_columns_beyond_the_vocabulary(offset: float, backend: tuple[str, str]) -> None:
    """verl: a tile's columns past V counted as logits of 0, a majority where the others are around -20."""
    case = shifted(make_case(17, 33, 1100, scale=1.0), offset)
    check(found(case, "recompute", backend), expected(case))


@backends
@modes
def test_a_maximum_below_zero(mode: str, backend: tuple[str, str]) -> None:
    """verl: a maximum that started at 0 made every sum underflow where all logits are around -200."""
    case = shifted(make_case(17, 33, 333), -200.0)
    check(found(case, mode, backend), expected(case))


@backends
@modes
def test_an_entropy_bonus_does_something(mode: str, backend: tuple[str, str]) -> None:
    """TRL: the entropy came with a gradient function that ignored its gradient."""
    case = make_case(17, 33, 129, logprob_slopes=None, entropy_slopes=torch.ones(17))
    outcome = found(case, mode, backend)
    assert outcome.hidden_grad.abs().max() > 0.1
    step = replace(case, hidden=case.hidden + 0.01 * outcome.hidden_grad)
    assert (expected(step).entropy > expected(case).entropy).all()


@backends
@modes
def test_no_probability_above_one(mode: str, backend: tuple[str, str]) -> None:
    """Mixed precision: a label's fp32 logit less a bf16 normaliser is up to +0.06 for confident tokens."""
    case = make_case(32, 256, 517, dtype=torch.bfloat16, scale=1.0)
    case.hidden.copy_(case.weight[case.labels] * torch.linspace(8, 26, 32)[:, None] / 256)
    wanted = expected(case)
    assert (wanted.logprobs > -1e-3).sum() > 10
    outcome = found(case, mode, backend)
    assert (outcome.logprobs <= 0).all()
    check(outcome, wanted, gradient=half_gradient(backend))


@backends
@modes
def test_a_label_of_elsewhere_matches_no_padded_column(
    mode: str, backend: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """CCE: a label on another rank had the number of a column that only the last tile's padding has.

    Blocks of 20 columns leave room for that in their tiles; see test_vocab_parallel for ranks.
    """
    for device in ("CPU", "GPU"):
        monkeypatch.setattr(blockwise, device, Sizes(tokens=64, columns=20, panel_elements=1))
    case = make_case(60, 5, 60, labels=torch.arange(60))
    check(found(case, mode, backend), expected(case))


@backends
@modes
def test_every_token_has_its_own_weight(mode: str, backend: tuple[str, str]) -> None:
    """Liger: with reduction="none" the gradient was that of the mean, or of the first token's weight."""
    case = make_case(6, 9, 129, entropy_slopes=None)
    weights = torch.tensor([0.0, 1.0, -1.0, 1e-3, 1e3, 7.0])
    equal = found(replace(case, logprob_slopes=torch.ones(6)), mode, backend).hidden_grad
    outcome = found(replace(case, logprob_slopes=weights), mode, backend)
    for row, weight, wanted in zip(outcome.hidden_grad, weights, equal, strict=True):
        assert relative_error(row, weight * wanted) <= 1e-6
