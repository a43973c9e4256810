"""Liger's fused linear cross entropy behind the operator, on the CPU through its torch fallback."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist

pytest.importorskip("liger_kernel")

from rlstack_kernels import liger_head, linear_logprob_entropy, logprob_entropy
from rlstack_kernels.measured import Measured
from rlstack_kernels.options import Entropy

from tests.kernels.oracle import (
    check,
    expected,
    found,
    half_gradient,
    loss_of,
    make_case,
    on_device,
    outputs_of,
    trainable,
)

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
LIGER = ("liger", DEVICE)
# On a GPU Liger's kernels take BF16 alone; elsewhere its fallback rounds logits to the operands' dtype.
DTYPE = torch.bfloat16 if DEVICE == "cuda" else torch.float32
VALUES, GRADIENT = (2e-6, 2e-6) if DEVICE == "cpu" else (5e-2, 2e-2)


@pytest.mark.parametrize(("num_tokens", "vocab"), [(0, 7), (1, 1), (17, 128), (64, 333), (530, 129)])
def test_it_is_the_textbook(num_tokens: int, vocab: int) -> None:
    """Chunks of its fallback have 512 tokens."""
    case = make_case(num_tokens, 64, vocab, dtype=DTYPE, inv_temp=0.9)
    case.labels[::3] = -100
    check(found(case, "auto", LIGER), expected(case), values=VALUES, gradient=GRADIENT)


def test_padding_takes_no_part() -> None:
    case = make_case(17, 64, 320, dtype=DTYPE, vocab_valid=300)
    case.labels.remainder_(300)
    case.weight[300:] = 100.0
    outcome = found(case, "recompute", LIGER)
    check(outcome, expected(case), values=VALUES, gradient=GRADIENT)
    assert not outcome.weight_grad[300:].any()


@pytest.mark.parametrize("absent", ["logprob_slopes", "entropy_slopes"])
def test_a_loss_of_one_output(absent: str) -> None:
    case = make_case(9, 64, 129, dtype=DTYPE, **{absent: None})
    check(found(case, "auto", LIGER), expected(case), values=VALUES, gradient=GRADIENT)


def test_in_bf16_the_error_is_that_of_rounded_logits() -> None:
    case = make_case(64, 64, 333, dtype=torch.bfloat16)
    wanted = expected(case)
    check(
        found(case, "auto", LIGER),
        wanted,
        values=wanted.logit_max / 256 + 0.02,
        gradient=4 * half_gradient(LIGER),
    )


@pytest.mark.parametrize("entropy", ["none", "metric"])
def test_an_entropy_without_a_gradient(entropy: Entropy) -> None:
    case = trainable(make_case(9, 64, 129, dtype=DTYPE), DEVICE)
    logprobs, entropies = outputs_of(case, "auto", "liger", entropy=entropy)
    logprobs.sum().backward()
    assert case.hidden.grad is not None and case.hidden.grad.any()
    if entropy == "none":
        assert entropies is None
        return
    assert entropies is not None
    with pytest.raises(RuntimeError, match="entropy='metric'"):
        outputs_of(case, "auto", "liger", entropy=entropy).entropy.sum().backward()


def test_main_grad_is_added_to_and_autograd_gets_none() -> None:
    case = trainable(make_case(9, 64, 140, dtype=DTYPE, vocab_valid=129), DEVICE)
    case.labels.remainder_(129)
    main_grad = torch.ones(case.weight.shape, device=DEVICE)
    loss_of(case, *outputs_of(case, "auto", "liger", main_grad=main_grad)).backward()
    wanted = expected(on_device(case, "cpu")).weight_grad
    assert case.weight.grad is None
    torch.testing.assert_close((main_grad.cpu() - 1).double(), wanted, atol=20 * GRADIENT, rtol=GRADIENT)


@pytest.mark.parametrize("frozen", ["hidden", "weight"])
def test_what_needs_no_gradient_gets_none(frozen: str) -> None:
    case = trainable(make_case(9, 64, 129, dtype=DTYPE), DEVICE)
    getattr(case, frozen).requires_grad_(False)
    loss_of(case, *outputs_of(case, "auto", "liger")).backward()
    other = case.weight if frozen == "hidden" else case.hidden
    assert getattr(case, frozen).grad is None and other.grad is not None


def test_without_gradients_the_values_are_those_of_training() -> None:
    case = trainable(make_case(9, 64, 129, dtype=DTYPE), DEVICE)
    trained = outputs_of(case, "auto", "liger")
    with torch.no_grad():
        outputs = outputs_of(case, "auto", "liger")
    assert not outputs.logprobs.requires_grad and torch.equal(outputs.logprobs, trained.logprobs)


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({}, {"mode": "save"}, "mode is 'save'; auto or recompute"),
        ({"inv_temp": torch.ones(9)}, {}, "one number is accepted"),
        ({"dtype": torch.float64}, {}, r"hidden is torch\.float64"),
    ],
    ids=["mode", "temperatures", "dtype"],
)
def test_what_it_cannot_do_is_refused(changes: dict, options: dict, message: str) -> None:
    case = make_case(9, 21, 129, **changes)
    with pytest.raises(ValueError, match=message):
        outputs_of(case, **{"mode": "auto", "implementation": "liger"} | options)


def test_it_does_not_start_from_logits() -> None:
    with pytest.raises(ValueError, match="starts from hidden states"):
        logprob_entropy(torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64), implementation="liger")


def test_without_its_package_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(liger_head, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'rlstack-megatron\[liger\]'"):
        outputs_of(make_case(9, 21, 129), "auto", "liger")


@pytest.mark.parametrize(
    ("on_gpu", "changes", "taken"),
    [
        (True, {}, True),
        (False, {}, False),
        (True, {"mode": "save"}, False),
        (True, {"inv_temp": torch.ones(1)}, False),
    ],
    ids=["measured", "CPU", "mode", "temperatures"],
)
def test_auto_takes_it_on_a_gpu_of_which_a_measurement_says_so(
    on_gpu: bool, changes: dict[str, Any], taken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    operator = sys.modules["rlstack_kernels.linear_logprob_entropy"]
    row = Measured("NVIDIA H200", "bfloat16", 9, 64, 129, own_s=2.0, liger_s=1.0, liger_error=0.0)
    monkeypatch.setattr(operator, "measured", lambda: (row,))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H200")
    of_gpu = {"is_cuda": on_gpu, "device": "cuda", "dtype": torch.bfloat16}
    hidden, weight = (SimpleNamespace(size=size.__getitem__, **of_gpu) for size in ((9, 64), (129, 64)))
    call = {"mode": "auto", "inv_temp": 1.0, "group": None} | changes
    assert operator._liger_is_faster(hidden, weight, **call) is taken
    with monkeypatch.context() as deterministic:
        deterministic.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
        assert not operator._liger_is_faster(hidden, weight, **call)
    monkeypatch.setattr(operator, "measured", lambda: ())
    assert not operator._liger_is_faster(hidden, weight, **call)


@pytest.mark.parametrize(
    ("vocab_valid", "vocab_start", "message"),
    [
        (300, 160, "vocab_valid is 300 of 320 rows on 2 ranks"),
        (None, 37, "vocab_start is 37; 160 is accepted"),
    ],
)
def test_several_ranks_hold_equal_parts_without_padding(
    vocab_valid: int | None, vocab_start: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two, this is the second; it says so before anything is exchanged."""
    monkeypatch.setattr(liger_head, "ranks_of", lambda group: 2)
    monkeypatch.setattr(dist, "get_rank", lambda group: 1)
    case = make_case(9, 21, 160)
    with pytest.raises(ValueError, match=message):
        linear_logprob_entropy(
            case.hidden,
            case.weight,
            case.labels + vocab_start,
            vocab_start=vocab_start,
            vocab_valid=vocab_valid,
            implementation="liger",
        )
