"""Inputs for the operators, what the textbook formulas give for them in fp64, and how close is close."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from itertools import product
from typing import Any, NamedTuple

import pytest
import torch
from rlstack_kernels import LogprobEntropy, linear_logprob_entropy, logprob_entropy
from torch import Tensor

MODES = ["save", "recompute", "eager"]
CUDA = torch.cuda.is_available()
BACKENDS = [("torch", "cpu"), ("triton", "cuda" if CUDA else "cpu"), *([("torch", "cuda")] if CUDA else [])]
IGNORED = -100

backends = pytest.mark.parametrize("backend", BACKENDS, ids="-".join)
modes = pytest.mark.parametrize("mode", MODES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """The loss is the sum of the outputs times their slopes; None where the loss has no such output."""

    hidden: Tensor  # [T, H]
    weight: Tensor  # [V, H]
    labels: Tensor  # [T]
    inv_temp: float | Tensor = 1.0
    logprob_slopes: Tensor | None  # [T]
    entropy_slopes: Tensor | None  # [T]
    vocab_valid: int | None = None


class Outcome(NamedTuple):
    logprobs: Tensor
    entropy: Tensor
    hidden_grad: Tensor
    weight_grad: Tensor
    logit_max: float = 0.0  # the largest |z|; of an expectation only


def make_case(
    num_tokens: int,
    hidden_size: int,
    vocab: int,
    *,
    dtype: torch.dtype = torch.float32,
    scale: float = 2.0,
    seed: int = 0,
    **changes: Any,
) -> Case:
    """Logits of standard deviation `scale`."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    tensors = {
        "hidden": (normal(num_tokens, hidden_size) * scale / hidden_size**0.5).to(dtype),
        "weight": normal(vocab, hidden_size).to(dtype),
        "labels": torch.randint(vocab, (num_tokens,), generator=generator),
        "logprob_slopes": normal(num_tokens).float(),
        "entropy_slopes": normal(num_tokens).float(),
    }
    return Case(**tensors | changes)


def exact_case(num_tokens: int, hidden_size: int, vocab: int, *, seed: int = 0, **changes: Any) -> Case:
    """Of small multiples of 1/8: logits are exact in fp32, so that every error is the operator's."""
    generator = torch.Generator().manual_seed(seed)

    def eighths(*shape: int) -> Tensor:
        return torch.randint(-8, 9, shape, generator=generator) / 8.0

    tensors = {"hidden": eighths(num_tokens, hidden_size), "weight": eighths(vocab, hidden_size)}
    return make_case(num_tokens, hidden_size, vocab, seed=seed, **tensors | changes)


def shapes_of(backend: tuple[str, str]) -> Iterable[tuple[int, int]]:
    """T, V on either side of powers of two and of nothing; fewer of them for Triton, which is slow at it."""
    if backend[0] == "torch":
        return product([0, 1, 17, 64], [1, 7, 127, 128, 129, 333, 517])
    return [(0, 7), (1, 1), (1, 333), (17, 127), (17, 128), (64, 129), (17, 517)]


def shifted(case: Case, offset: float | Tensor) -> Case:
    """The same softmax, with `offset` (of all logits or [T] of each row's) on every logit."""
    column = torch.full((case.hidden.size(0), 1), 1.0) * torch.as_tensor(offset).reshape(-1, 1)
    ones = torch.ones(case.weight.size(0), 1)
    hidden = torch.cat([case.hidden, column.to(case.hidden.dtype)], 1)
    return replace(case, hidden=hidden, weight=torch.cat([case.weight, ones.to(case.weight.dtype)], 1))


def textbook(logits: Tensor, labels: Tensor, *, ignore_index: int = IGNORED) -> tuple[Tensor, Tensor]:
    """log p of the label and minus the sum of p log p, [T] each, in the logits' dtype, for autograd."""
    logprobs = torch.log_softmax(logits, -1)
    kept = labels != ignore_index
    taken = logprobs.gather(1, torch.where(kept, labels.long(), 0)[:, None])[:, 0]
    return torch.where(kept, taken, 0.0), torch.where(kept, entropy_of(logprobs), 0.0)


def entropy_of(logprobs: Tensor) -> Tensor:
    """[T] from [T, V], with autograd; columns of -inf take no part."""
    return -(logprobs.exp() * logprobs.masked_fill(logprobs == -torch.inf, 0.0)).sum(-1)


def loss_of(case: Case, logprobs: Tensor, entropy: Tensor | None) -> Tensor:
    """The zero keeps it differentiable where there are no slopes at all."""
    loss = logprobs.sum() * 0.0 if case.logprob_slopes is None else (logprobs * case.logprob_slopes).sum()
    if case.entropy_slopes is None:
        return loss
    assert entropy is not None
    return loss + (entropy * case.entropy_slopes).sum()


def expected(case: Case, *, ignore_index: int = IGNORED) -> Outcome:
    """In fp64, by autograd; rows of the weight from `vocab_valid` on take no part."""
    hidden, weight = (t.detach().double().requires_grad_() for t in (case.hidden, case.weight))
    scaled = scaled_logits(hidden @ weight.t(), case)
    logprobs, entropy = textbook(scaled, case.labels, ignore_index=ignore_index)
    gradients = torch.autograd.grad(loss_of(case, logprobs, entropy), (hidden, weight))
    logit_max = scaled.abs().max().item() if scaled.numel() else 0.0
    return Outcome(logprobs.detach(), entropy.detach(), *gradients, logit_max)


def expected_from_logits(logits: Tensor, case: Case) -> tuple[Tensor, Tensor, Tensor]:
    """Logprobs, entropies and the logits' gradient, likewise."""
    logits = logits.detach().double().requires_grad_()
    logprobs, entropy = textbook(scaled_logits(logits, case), case.labels)
    (gradient,) = torch.autograd.grad(loss_of(case, logprobs, entropy), logits)
    return logprobs.detach(), entropy.detach(), gradient


def scaled_logits(logits: Tensor, case: Case) -> Tensor:
    """Times inv_temp, without the padding."""
    inv_temp = torch.as_tensor(case.inv_temp, dtype=torch.float64).reshape(-1, 1)
    return logits[:, : case.vocab_valid] * inv_temp


def on_device(case: Case, device: str) -> Case:
    values = {field.name: getattr(case, field.name) for field in fields(case)}
    return Case(**{name: v.to(device) if isinstance(v, Tensor) else v for name, v in values.items()})


def promise(case: Case) -> Callable[[slice, LogprobEntropy], tuple[Tensor, Tensor | None]]:
    """The gradients of `loss_of`, as eager mode asks for them."""

    def token_gradients(tokens: slice, outputs: LogprobEntropy) -> tuple[Tensor, Tensor | None]:
        by_logprob, by_entropy = case.logprob_slopes, case.entropy_slopes
        zeros = torch.zeros_like(outputs.logprobs)
        return (
            zeros if by_logprob is None else by_logprob[tokens],
            None if by_entropy is None else by_entropy[tokens],
        )

    return token_gradients


def outputs_of(
    case: Case, mode: str = "recompute", implementation: str = "torch", **options: Any
) -> LogprobEntropy:
    """Of the operator, for the case's own tensors."""
    if mode == "eager":
        options["token_gradients"] = promise(case)
    return linear_logprob_entropy(
        case.hidden,
        case.weight,
        case.labels,
        inv_temp=case.inv_temp,
        vocab_valid=case.vocab_valid,
        mode=mode,
        implementation=implementation,
        **options,
    )


def trainable(case: Case, device: str = "cpu") -> Case:
    """On `device`, with a hidden and a weight of its own to differentiate by."""
    case = on_device(case, device)
    return replace(
        case, hidden=case.hidden.detach().requires_grad_(), weight=case.weight.detach().requires_grad_()
    )


def found(
    case: Case, mode: str = "recompute", backend: tuple[str, str] = BACKENDS[0], **options: Any
) -> Outcome:
    """Of the operator, on the CPU in the dtypes in which it gave them."""
    implementation, device = backend
    case = trainable(case, device)
    outputs = outputs_of(case, mode, implementation, **options)
    gradients = torch.autograd.grad(loss_of(case, *outputs), (case.hidden, case.weight))
    assert outputs.entropy is not None
    return Outcome(*(tensor.detach().cpu() for tensor in (*outputs, *gradients)))


def found_from_logits(
    logits: Tensor, case: Case, backend: tuple[str, str] = BACKENDS[0], **options: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Logprobs, entropies and the logits' gradient, on the CPU."""
    implementation, device = backend
    case = on_device(case, device)
    logits = logits.detach().to(device).requires_grad_()
    options = {"inv_temp": case.inv_temp, "vocab_valid": case.vocab_valid} | options
    logprobs, entropy = logprob_entropy(logits, case.labels, implementation=implementation, **options)
    (gradient,) = torch.autograd.grad(loss_of(case, logprobs, entropy), logits)
    assert entropy is not None
    return logprobs.detach().cpu(), entropy.detach().cpu(), gradient.cpu()


def relative_error(found: Tensor, expected: Tensor) -> float:
    """In the Frobenius norm; 0 for two zeros."""
    found, expected = found.double(), expected.double()
    return ((found - expected).norm() / expected.norm().clamp(min=1e-30)).item()


def check_second_backward(loss: Tensor, leaf: Tensor) -> None:
    """It is right or refused: the first one may have used up what was saved."""
    (first,) = torch.autograd.grad(loss, leaf, retain_graph=True)
    first = first.clone()
    try:
        (second,) = torch.autograd.grad(loss, leaf)
    except RuntimeError:
        return
    assert torch.equal(first, second)


def half_gradient(backend: tuple[str, str]) -> float:
    """The relative error allowed in bf16 and fp16; Triton's interpreter truncates instead of rounding."""
    return 8e-3 if backend == ("triton", "cpu") else 5e-3


def check(
    found: Outcome, expected: Outcome, *, values: float = 2e-6, gradient: float = 2e-6, scaled: bool = True
) -> None:
    """To these absolute and relative errors; times |z| / 16 where that is larger, with `scaled`."""
    factor = max(1.0, expected.logit_max / 16) if scaled else 1.0
    for name in ("logprobs", "entropy"):
        one, other = getattr(found, name), getattr(expected, name)
        assert one.shape == other.shape and one.dtype == torch.promote_types(
            found.hidden_grad.dtype, torch.float32
        )
        torch.testing.assert_close(one.double(), other, atol=values * factor, rtol=0)
    for name in ("hidden_grad", "weight_grad"):
        one, other = getattr(found, name), getattr(expected, name)
        assert one.shape == other.shape and one.isfinite().all()
        assert relative_error(one, other) <= gradient * factor, name
