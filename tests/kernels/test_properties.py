"""What holds of any softmax, on inputs that hypothesis picks."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kernels.oracle import (
    MODES,
    backends,
    check,
    exact_case,
    expected,
    found,
    make_case,
    modes,
    relative_error,
    shifted,
)

SIZES = {"num_tokens": st.integers(1, 9), "hidden_size": st.integers(1, 17), "vocab": st.integers(1, 300)}
SEED = st.integers(0, 2**31)


def examples(torch_examples: int, backend: tuple[str, str]) -> settings:
    return settings(
        max_examples=torch_examples if backend[0] == "torch" else 5, deadline=None, derandomize=True
    )


@backends
@modes
def test_it_is_the_textbooks_softmax(mode: str, backend: tuple[str, str]) -> None:
    @examples(60, backend)
    @given(
        **SIZES,
        seed=SEED,
        scale=st.floats(0.01, 30.0),
        inv_temp=st.floats(0.1, 3.0),
        half=st.booleans(),
        ignored=st.integers(0, 9),
    )
    def run(num_tokens, hidden_size, vocab, seed, scale, inv_temp, half, ignored) -> None:
        dtype = torch.bfloat16 if half else torch.float32
        case = make_case(
            num_tokens, hidden_size, vocab, seed=seed, scale=scale, inv_temp=inv_temp, dtype=dtype
        )
        case.labels[:ignored] = -100
        wanted = expected(case)
        outcome = found(case, mode, backend)
        check(outcome, wanted, values=6e-6, gradient=8e-3 if half else 6e-6)
        assert (outcome.logprobs <= 0).all() and (outcome.entropy >= 0).all()
        assert (outcome.entropy <= math.log(vocab) + 1e-6).all()

    run()


@backends
def test_a_shift_of_the_logits_changes_nothing(backend: tuple[str, str]) -> None:
    @examples(40, backend)
    @given(**SIZES, seed=SEED, offset=st.integers(-10_000, 10_000))
    def run(num_tokens, hidden_size, vocab, seed, offset) -> None:
        case = exact_case(num_tokens, hidden_size, vocab, seed=seed)
        offsets = offset * torch.linspace(0, 1, num_tokens).round(decimals=0)
        one, other = found(case, backend=backend), found(shifted(case, offsets), backend=backend)
        torch.testing.assert_close(one[:2], other[:2], atol=1e-6, rtol=0)
        torch.testing.assert_close(one.hidden_grad, other.hidden_grad[:, :-1], atol=1e-5, rtol=1e-5)

    run()


@backends
def test_the_order_of_the_vocabulary_does_not_matter(backend: tuple[str, str]) -> None:
    @examples(40, backend)
    @given(**SIZES, seed=SEED)
    def run(num_tokens, hidden_size, vocab, seed) -> None:
        case = make_case(num_tokens, hidden_size, vocab, seed=seed)
        order = torch.randperm(vocab, generator=torch.Generator().manual_seed(seed))
        place = order.argsort()
        one = found(case, backend=backend)
        other = found(replace(case, weight=case.weight[order], labels=place[case.labels]), backend=backend)
        torch.testing.assert_close(one[:2], other[:2], atol=4e-6, rtol=0)
        torch.testing.assert_close(one.hidden_grad, other.hidden_grad, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(one.weight_grad[order], other.weight_grad, atol=1e-5, rtol=1e-5)

    run()


@backends
def test_all_modes_agree(backend: tuple[str, str]) -> None:
    @examples(40, backend)
    @given(**SIZES, seed=SEED, scale=st.floats(0.01, 10.0))
    def run(num_tokens, hidden_size, vocab, seed, scale) -> None:
        case = make_case(num_tokens, hidden_size, vocab, seed=seed, scale=scale)
        first, *rest = (found(case, mode, backend) for mode in MODES)
        for other in rest:
            assert torch.equal(first.logprobs, other.logprobs)
            assert torch.equal(first.entropy, other.entropy)
            torch.testing.assert_close(first.hidden_grad, other.hidden_grad, atol=1e-5, rtol=1e-5)
            assert relative_error(first.weight_grad, other.weight_grad) <= 1e-5

    run()


@backends
@modes
def test_every_gradient_of_logits_sums_to_zero(mode: str, backend: tuple[str, str]) -> None:
    """With a weight whose columns are all ones, the hidden states' gradient is that sum."""
    case = make_case(17, 21, 333)
    case.weight[:, 0] = 1.0
    assert found(case, mode, backend).hidden_grad[:, 0].abs().max() <= 2e-6
