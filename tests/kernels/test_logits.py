"""`logprob_entropy`, which starts from logits, against the textbook formulas in fp64."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product

import pytest
import torch
from rlstack_kernels import logprob_entropy
from torch import Tensor

from tests.kernels.oracle import (
    BACKENDS,
    Case,
    check_second_backward,
    found_from_logits,
    half_gradient,
    loss_of,
    make_case,
    on_device,
    relative_error,
    textbook,
)

backends = pytest.mark.parametrize("backend", BACKENDS, ids="-".join)
SOME_SHAPES = [(0, 7), (1, 1), (1, 333), (17, 127), (17, 128), (64, 129), (17, 517)]


def logits_and_case(
    num_tokens: int, vocab: int, *, scale: float = 3.0, **changes: object
) -> tuple[Tensor, Case]:
    case = make_case(num_tokens, 1, vocab, **changes)
    generator = torch.Generator().manual_seed(vocab)
    return torch.randn(num_tokens, vocab, generator=generator) * scale, case


def expected_from_logits(logits: Tensor, case: Case) -> tuple[Tensor, Tensor, Tensor]:
    logits = logits.detach().double().requires_grad_()
    scaled = logits[:, : case.vocab_valid] * torch.as_tensor(case.inv_temp, dtype=torch.float64).reshape(
        -1, 1
    )
    logprobs, entropy = textbook(scaled, case.labels)
    (gradient,) = torch.autograd.grad(loss_of(case, logprobs, entropy), logits)
    return logprobs.detach(), entropy.detach(), gradient


def check(found: tuple[Tensor, ...], wanted: tuple[Tensor, ...], *, gradient: float = 2e-6) -> None:
    for one, other in zip(found[:2], wanted[:2], strict=True):
        torch.testing.assert_close(one.double(), other, atol=2e-6, rtol=0)
    assert found[2].shape == wanted[2].shape
    assert relative_error(found[2], wanted[2]) <= gradient


@backends
@pytest.mark.parametrize("overwrite", [False, True])
def test_shapes(overwrite: bool, backend: tuple[str, str]) -> None:
    every = product([0, 1, 17, 64], [1, 7, 127, 128, 129, 333, 517])
    for num_tokens, vocab in every if backend[0] == "torch" else SOME_SHAPES:
        logits, case = logits_and_case(num_tokens, vocab, seed=vocab)
        wanted = expected_from_logits(logits, case)
        check(found_from_logits(logits, case, backend, overwrite_logits=overwrite), wanted)


@backends
def test_ignored_tokens_temperatures_and_padding(backend: tuple[str, str]) -> None:
    logits, case = logits_and_case(17, 333, inv_temp=torch.linspace(0.1, 2.0, 17), vocab_valid=300)
    case.labels.remainder_(300)[::3] = -100
    logits[:, 300:] = 1e4
    outcome = found_from_logits(logits, case, backend)
    check(outcome, expected_from_logits(logits, case))
    assert not any(tensor[::3].any() for tensor in outcome) and not outcome[2][:, 300:].any()


def test_the_reference_is_the_textbook() -> None:
    logits, case = logits_and_case(17, 333, inv_temp=torch.linspace(0.1, 2.0, 17), vocab_valid=300)
    case.labels.remainder_(300)[::3] = -100
    outcome = found_from_logits(logits.double(), case, ("reference", "cpu"))
    for one, other in zip(outcome, expected_from_logits(logits, case), strict=True):
        assert relative_error(one, other) <= 1e-7  # the temperatures are fp32 numbers


@backends
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits(dtype: torch.dtype, backend: tuple[str, str]) -> None:
    logits, case = logits_and_case(17, 333)
    logits = logits.to(dtype)
    outcome = found_from_logits(logits, case, backend)
    assert outcome[0].dtype == torch.float32 and outcome[2].dtype == dtype
    check(outcome, expected_from_logits(logits, case), gradient=half_gradient(backend))


@backends
@pytest.mark.parametrize("overwrite", [False, True])
def test_strided_rows(overwrite: bool, backend: tuple[str, str]) -> None:
    whole, case = logits_and_case(17, 400)
    logits = whole[:, 20:353]
    case.labels.remainder_(333)
    wanted = expected_from_logits(logits, case)
    check(found_from_logits(logits, case, backend, overwrite_logits=overwrite), wanted)


@backends
def test_masked_logits_have_no_probability_and_no_gradient(backend: tuple[str, str]) -> None:
    """As after top-p: another set of -inf columns in each row, whole tiles of them in some."""
    logits, case = logits_and_case(17, 517, inv_temp=0.5)
    masked = torch.rand(logits.shape, generator=torch.Generator().manual_seed(1)) < 0.7
    masked[3, :400], masked[4, 400:], masked[5] = True, True, True
    masked[torch.arange(17), case.labels] = False
    logits[masked] = -math.inf
    outcome = found_from_logits(logits, case, backend)
    check(outcome, expected_from_logits(logits, case))
    assert all(tensor.isfinite().all() for tensor in outcome) and not outcome[2][masked].any()
    assert outcome[0][5] == 0.0 and outcome[1][5] == 0.0
    assert outcome[2].sum(-1).abs().max() <= 2e-6


@backends
def test_a_masked_label_has_no_probability(backend: tuple[str, str]) -> None:
    logits, case = logits_and_case(3, 129, entropy_slopes=None)
    logits[1, case.labels[1]] = -math.inf
    logprobs, entropy, gradient = found_from_logits(logits, case, backend)
    assert logprobs[1] < -1e4 and entropy.isfinite().all()
    assert gradient[[0, 2]].isfinite().all() and not gradient.isnan().any()


@backends
def test_nan_stays_in_its_row(backend: tuple[str, str]) -> None:
    logits, case = logits_and_case(9, 333)
    clean = found_from_logits(logits, case, backend)
    logits[4, 200] = math.nan
    outcome = found_from_logits(logits, case, backend)
    others = torch.arange(9) != 4
    for spoilt, wanted in zip(outcome, clean, strict=True):
        assert spoilt[4].isnan().all() and torch.equal(spoilt[others], wanted[others])


@backends
@pytest.mark.parametrize("overwrite", [False, True])
def test_the_logits_memory_is_used_only_if_allowed(overwrite: bool, backend: tuple[str, str]) -> None:
    logits, case = logits_and_case(17, 333)
    case = on_device(case, backend[1])
    logits = logits.to(backend[1])
    kept = logits.clone()
    leaf = logits.requires_grad_()
    outputs = logprob_entropy(leaf, case.labels, implementation=backend[0], overwrite_logits=overwrite)
    assert torch.equal(leaf, kept)
    (gradient,) = torch.autograd.grad(loss_of(case, *outputs), leaf)
    assert (gradient.data_ptr() == leaf.data_ptr()) == overwrite
    assert overwrite or torch.equal(leaf, kept)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_second_backward_is_right_or_refused(overwrite: bool) -> None:
    logits, case = logits_and_case(17, 333)
    leaf = logits.requires_grad_()
    loss = loss_of(case, *logprob_entropy(leaf, case.labels, overwrite_logits=overwrite))
    check_second_backward(loss, leaf)


@backends
def test_an_entropy_for_metrics_has_no_gradient(backend: tuple[str, str]) -> None:
    logits, case = logits_and_case(17, 129, entropy_slopes=None)
    check(found_from_logits(logits, case, backend, entropy="metric"), expected_from_logits(logits, case))
    with pytest.raises(RuntimeError, match="entropy"):
        found_from_logits(logits, replace(case, entropy_slopes=torch.ones(17)), backend, entropy="metric")
    assert logprob_entropy(logits, case.labels, entropy="none").entropy is None


def test_gradcheck() -> None:
    logits, case = logits_and_case(4, 9)
    inv_temp = torch.tensor([0.5, 1.0, 2.0, 0.7], dtype=torch.float64)

    def operator(logits: Tensor) -> tuple[Tensor, ...]:
        logprobs, entropy = logprob_entropy(logits, case.labels, inv_temp=inv_temp, vocab_valid=9)
        assert entropy is not None
        return logprobs, entropy

    assert torch.autograd.gradcheck(operator, (logits.double().requires_grad_(),))


def test_the_reference_too_refuses_a_gradient_of_an_entropy_for_metrics() -> None:
    logits, labels = torch.randn(3, 5, requires_grad=True), torch.tensor([0, 4, 2])
    found = logprob_entropy(logits, labels, entropy="metric", implementation="reference")
    found.logprobs.sum().backward(retain_graph=True)
    assert found.entropy is not None
    with pytest.raises(RuntimeError, match="entropy='metric'"):
        found.entropy.sum().backward()
