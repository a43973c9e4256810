"""Values and gradients of `linear_logprob_entropy` against the textbook formulas in fp64."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from rlstack_kernels import LogprobEntropy

from tests.kernels.oracle import (
    backends,
    check,
    expected,
    found,
    half_gradient,
    make_case,
    modes,
    outputs_of,
    relative_error,
    shapes_of,
    textbook,
    trainable,
)


@backends
@modes
def test_shapes(mode: str, backend: tuple[str, str]) -> None:
    for num_tokens, vocab in shapes_of(backend):
        case = make_case(num_tokens, 21, vocab, scale=1.5, seed=vocab)
        check(found(case, mode, backend), expected(case))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_reference_is_the_textbook(dtype: torch.dtype) -> None:
    temperatures = torch.rand(17, generator=torch.Generator().manual_seed(0)) + 0.5
    case = make_case(17, 21, 333, dtype=dtype, inv_temp=temperatures, vocab_valid=300)
    case.labels.clamp_(max=299)[::3] = -100
    outcome, wanted = found(case, "auto", ("reference", "cpu")), expected(case)
    tolerance = {torch.float32: 2e-7, torch.float64: 1e-13}[dtype]
    for one, other in zip(outcome[:4], wanted[:4], strict=True):
        assert one.dtype == dtype
        assert relative_error(one, other) <= tolerance


@backends
@modes
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_costs_no_digits_of_the_values(
    dtype: torch.dtype, mode: str, backend: tuple[str, str]
) -> None:
    case = make_case(17, 33, 333, dtype=dtype)
    outcome = found(case, mode, backend)
    assert outcome.hidden_grad.dtype == outcome.weight_grad.dtype == dtype
    wanted = expected(case)
    assert wanted.logit_max < 16
    check(outcome, wanted, gradient=half_gradient(backend))


@backends
@modes
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_confident_token_keeps_the_digits_of_its_gradient(
    dtype: torch.dtype, mode: str, backend: tuple[str, str]
) -> None:
    """1 - p of the label is around 1e-5 here: nothing is left of it if p is ever rounded to bf16.

    In fp32 the sum of exponentials, 1 + 1e-5, has two to three digits of it.
    """
    case = make_case(17, 33, 129, dtype=dtype, entropy_slopes=None)
    case.weight[:, -1] = 0.0
    case.weight[case.labels[0], -1] = 4.0
    case.labels.fill_(case.labels[0])
    case.hidden[:, -1] = 4.5
    wanted = expected(case)
    assert -1e-3 < wanted.logprobs.median() < -1e-6
    outcome = found(case, mode, backend)
    tolerance = 1e-3 if dtype == torch.float32 else half_gradient(backend)
    assert relative_error(outcome.hidden_grad, wanted.hidden_grad) <= tolerance
    assert relative_error(outcome.weight_grad, wanted.weight_grad) <= tolerance


@backends
@modes
@pytest.mark.parametrize("absent", ["logprob_slopes", "entropy_slopes"])
def test_a_loss_of_one_output(absent: str, mode: str, backend: tuple[str, str]) -> None:
    case = make_case(9, 21, 129, **{absent: None})
    check(found(case, mode, backend), expected(case))


@modes
def test_a_loss_of_neither_has_zero_gradients(mode: str) -> None:
    case = make_case(9, 21, 129, logprob_slopes=None, entropy_slopes=None)
    outcome = found(case, mode)
    assert not outcome.hidden_grad.any() and not outcome.weight_grad.any()


@backends
@modes
def test_strided_hidden_and_narrow_labels(mode: str, backend: tuple[str, str]) -> None:
    case = make_case(17, 42, 129)
    strided = case.hidden.t().contiguous().t()[:, ::2]
    labels = torch.stack([case.labels, case.labels], 1).int()[:, 0]
    assert not strided.is_contiguous() and not labels.is_contiguous()
    case = replace(case, hidden=strided, weight=case.weight[:, ::2], labels=labels)
    check(found(case, mode, backend), expected(case))


@backends
@modes
def test_without_gradients_the_values_are_those_of_training(mode: str, backend: tuple[str, str]) -> None:
    """The ratio of the first step's policy and its old logprobs is then 1."""
    case = make_case(17, 21, 333, dtype=torch.bfloat16)
    trained = found(case, mode, backend)
    with torch.no_grad():
        outputs = outputs_of(trainable(case, backend[1]), implementation=backend[0])
    for untrained, wanted in zip(outputs, trained[:2], strict=True):
        assert untrained is not None and not untrained.requires_grad
        torch.testing.assert_close(untrained.cpu(), wanted, atol=1e-6, rtol=0)


def test_gradcheck() -> None:
    case = make_case(4, 3, 7, dtype=torch.float64, scale=1.0)
    case.labels[0] = -100
    inv_temp = torch.tensor([0.5, 1.0, 2.0, 0.7], dtype=torch.float64)

    def operator(hidden: torch.Tensor, weight: torch.Tensor) -> LogprobEntropy:
        return outputs_of(replace(case, hidden=hidden, weight=weight, inv_temp=inv_temp))

    assert torch.autograd.gradcheck(operator, (case.hidden.requires_grad_(), case.weight.requires_grad_()))


@modes
def test_fp64_operands_give_fp64_results(mode: str) -> None:
    case = make_case(17, 21, 333, dtype=torch.float64)
    outcome, wanted = found(case, mode), expected(case)
    for one, other in zip(outcome[:4], wanted[:4], strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-12)


def test_textbook_is_torchs_own_cross_entropy_and_entropy() -> None:
    logits = torch.randn(5, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 8, 3, 3, 1])
    logprobs, entropy = textbook(logits, labels)
    torch.testing.assert_close(-logprobs, torch.nn.functional.cross_entropy(logits, labels, reduction="none"))
    torch.testing.assert_close(entropy, torch.distributions.Categorical(logits=logits).entropy())
