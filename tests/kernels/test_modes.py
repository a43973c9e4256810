"""The entropy's choices, where gradients go, and what eager promises."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from rlstack_kernels import LogprobEntropy, linear_logprob_entropy

from tests.kernels.oracle import (
    backends,
    check,
    check_second_backward,
    expected,
    found,
    half_gradient,
    loss_of,
    make_case,
    modes,
    outputs_of,
    relative_error,
    trainable,
)


@backends
@modes
def test_no_entropy(mode: str, backend: tuple[str, str]) -> None:
    implementation, device = backend
    case = make_case(17, 21, 129, entropy_slopes=None)
    own, wanted = trainable(case, device), expected(case)
    outputs = outputs_of(own, mode, implementation, entropy="none")
    assert isinstance(outputs, LogprobEntropy) and outputs.entropy is None
    torch.testing.assert_close(outputs.logprobs.double().cpu(), wanted.logprobs, atol=2e-6, rtol=0)
    (gradient,) = torch.autograd.grad(loss_of(own, *outputs), own.hidden)
    assert relative_error(gradient.cpu(), wanted.hidden_grad) <= 2e-6


@backends
@pytest.mark.parametrize("mode", ["save", "recompute"])
def test_an_entropy_for_metrics_has_the_value_but_no_gradient(mode: str, backend: tuple[str, str]) -> None:
    case = make_case(17, 21, 129, entropy_slopes=None)
    check(found(case, mode, backend, entropy="metric"), expected(case))
    with pytest.raises(RuntimeError, match="entropy"):
        found(replace(case, entropy_slopes=torch.ones(17)), mode, backend, entropy="metric")


@modes
def test_a_second_backward_is_right_or_refused(mode: str) -> None:
    case = trainable(make_case(17, 21, 129))
    check_second_backward(loss_of(case, *outputs_of(case, mode)), case.hidden)


@backends
@modes
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_main_grad_is_added_to(dtype: torch.dtype, mode: str, backend: tuple[str, str]) -> None:
    implementation, device = backend
    case = make_case(17, 21, 129, dtype=dtype, vocab_valid=120)
    case.labels.remainder_(120)
    own = trainable(case, device)
    main_grad = torch.zeros_like(own.weight, dtype=torch.float32)

    def step() -> torch.Tensor:
        loss_of(own, *outputs_of(own, mode, implementation, main_grad=main_grad)).backward()
        return main_grad.clone()

    once, twice = step(), step()
    assert own.weight.grad is None
    tolerance = 2e-6 if dtype == torch.float32 else half_gradient(backend)
    assert relative_error(once.cpu(), expected(case).weight_grad) <= tolerance
    assert torch.equal(twice, 2 * once)
    assert not once[120:].any()


@pytest.mark.parametrize("frozen", ["hidden", "weight"])
@modes
def test_what_needs_no_gradient_gets_none(mode: str, frozen: str) -> None:
    case = trainable(make_case(17, 21, 129))
    getattr(case, frozen).requires_grad_(False)
    loss_of(case, *outputs_of(case, mode)).backward()
    trained = "weight" if frozen == "hidden" else "hidden"
    assert getattr(case, frozen).grad is None
    wanted = getattr(expected(case), f"{trained}_grad")
    assert relative_error(getattr(case, trained).grad, wanted) <= 2e-6


@backends
@pytest.mark.parametrize("factor", [0.5, -1.0])
@pytest.mark.parametrize("name", ["logprob_slopes", "entropy_slopes"])
def test_eager_refuses_other_gradients_than_promised(
    name: str, factor: float, backend: tuple[str, str]
) -> None:
    implementation, device = backend
    case = trainable(make_case(17, 21, 129), device)
    other = replace(case, **{name: getattr(case, name) * factor})
    with pytest.raises(RuntimeError, match="token_gradients"):
        loss_of(other, *outputs_of(case, "eager", implementation)).backward()


def test_eager_is_told_the_final_outputs_of_every_token_once() -> None:
    """With a loss whose gradient depends on them."""
    case = trainable(make_case(700, 5, 7))
    seen: list[tuple[slice, LogprobEntropy]] = []

    def token_gradients(tokens: slice, outputs: LogprobEntropy) -> tuple[torch.Tensor, torch.Tensor]:
        assert outputs.entropy is not None
        seen.append((tokens, LogprobEntropy(*(output.clone() for output in outputs))))
        return outputs.logprobs.exp(), -outputs.entropy

    outputs = linear_logprob_entropy(
        case.hidden, case.weight, case.labels, mode="eager", token_gradients=token_gradients
    )
    assert [token for tokens, _ in seen for token in range(700)[tokens]] == list(range(700))
    for whole, parts in zip(outputs, zip(*(part for _, part in seen), strict=True), strict=True):
        assert torch.equal(torch.cat(parts), whole)
    assert outputs.entropy is not None
    (outputs.logprobs.exp() - outputs.entropy.square() / 2).sum().backward()
    first = expected(case)
    slopes = {"logprob_slopes": first.logprobs.exp(), "entropy_slopes": -first.entropy}
    assert relative_error(case.hidden.grad, expected(replace(case, **slopes)).hidden_grad) <= 2e-6
