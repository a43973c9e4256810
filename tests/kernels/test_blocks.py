"""The division of the work into blocks, panels and chunks: any gives the same, and none holds all logits."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch
from rlstack_kernels import blockwise, linear_modes, logprob_entropy
from rlstack_kernels.blockwise import Sizes
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.kernels.oracle import (
    BACKENDS,
    MODES,
    backends,
    check,
    expected,
    found,
    loss_of,
    make_case,
    modes,
    on_device,
    outputs_of,
    trainable,
)

T, H, V = 64, 8, 517
BLOCKS = Sizes(tokens=16, columns=64, panel_elements=T * 64)
logits_module = importlib.import_module("rlstack_kernels.logprob_entropy")
# The interpreter copies what it is given.
COMPILED = [backend for backend in BACKENDS if backend != ("triton", "cpu")]
compiled_backends = pytest.mark.parametrize("backend", COMPILED, ids="-".join)


class Allocations(TorchDispatchMode):
    """The memory other than that of `inputs` in which torch's operations give something."""

    def __init__(self, *inputs: Tensor) -> None:
        super().__init__()
        self._known = {tensor.untyped_storage().data_ptr() for tensor in inputs}
        self._largest: dict[int, Tensor] = {}  # by address, which none shares with what is held here

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and tensor.untyped_storage().data_ptr() not in self._known:
                address = tensor.untyped_storage().data_ptr()
                self._largest[address] = max(self._largest.get(address, tensor), tensor, key=Tensor.numel)
        return result

    @property
    def seen(self) -> list[tuple[int, torch.dtype]]:
        """Elements and dtype of each piece."""
        return [(tensor.numel(), tensor.dtype) for tensor in self._largest.values()]

    @property
    def largest(self) -> int:
        return max(size for size, _ in self.seen)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("CPU", "GPU"):
        monkeypatch.setattr(blockwise, name, BLOCKS)
    monkeypatch.setattr(linear_modes, "EAGER_TOKENS", 8)
    monkeypatch.setattr(logits_module, "BLOCK_ELEMENTS", 8 * V)
    return monkeypatch


@backends
@modes
@pytest.mark.parametrize(
    ("sizes", "eager_tokens"),
    [
        (Sizes(tokens=7, columns=64, panel_elements=1), 9),
        (Sizes(tokens=100, columns=100, panel_elements=2 * 100 * 17), 17),
        (Sizes(tokens=5, columns=1000, panel_elements=2**20), 100),
    ],
)
def test_any_division_gives_the_same(
    sizes: Sizes, eager_tokens: int, mode: str, backend: tuple[str, str], small: pytest.MonkeyPatch
) -> None:
    for name in ("CPU", "GPU"):
        small.setattr(blockwise, name, sizes)
    small.setattr(linear_modes, "EAGER_TOKENS", eager_tokens)
    case = make_case(17, 21, 333, vocab_valid=321, inv_temp=0.8)
    case.labels.remainder_(321)[::5] = -100
    check(found(case, mode, backend), expected(case))


def allocations(mode: str, backend: tuple[str, str], *, no_grad: bool = False, **options: Any) -> Allocations:
    """Of a forward and a backward pass in bf16, of which logits in fp32 would be T * V elements."""
    case = trainable(make_case(T, H, V, dtype=torch.bfloat16), backend[1])
    operands = case.hidden, case.weight
    with Allocations(*operands) as recorded, torch.set_grad_enabled(not no_grad):
        outputs = outputs_of(case, mode, backend[0], **options)
        if not no_grad:
            torch.autograd.grad(loss_of(case, *outputs), operands)
    return recorded


@compiled_backends
@pytest.mark.parametrize("mode", ["recompute", "eager"])
@pytest.mark.usefixtures("small")
def test_all_logits_never_exist(mode: str, backend: tuple[str, str]) -> None:
    assert allocations(mode, backend).largest <= T * V // 4


@compiled_backends
@pytest.mark.parametrize("mode", [*MODES, "auto"])
@pytest.mark.usefixtures("small")
def test_without_gradients_all_logits_never_exist(mode: str, backend: tuple[str, str]) -> None:
    assert allocations(mode, backend, no_grad=True).largest <= T * V // 4


@compiled_backends
@pytest.mark.usefixtures("small")
def test_save_keeps_them_once_and_narrow(backend: tuple[str, str]) -> None:
    large = [piece for piece in allocations("save", backend).seen if piece[0] > T * V // 4]
    assert large == [(T * V, torch.bfloat16)]


@pytest.mark.parametrize("over", [0, 1])
@pytest.mark.usefixtures("small")
def test_auto_saves_within_its_budget(over: int) -> None:
    largest = allocations("auto", BACKENDS[0], save_budget_bytes=T * V * 2 - over).largest
    assert (largest == T * V) == (over == 0)


@compiled_backends
@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.usefixtures("small")
def test_logits_are_never_copied_whole(overwrite: bool, backend: tuple[str, str]) -> None:
    """But for the gradient, which takes their place with `overwrite_logits`."""
    case = on_device(make_case(T, H, V), backend[1])
    logits = torch.zeros(T, V, dtype=torch.bfloat16, device=backend[1]).requires_grad_()
    with Allocations(logits) as forward:
        outputs = logprob_entropy(logits, case.labels, implementation=backend[0], overwrite_logits=overwrite)
    with Allocations(logits) as backward:
        torch.autograd.grad(loss_of(case, *outputs), logits)
    assert forward.largest <= T * V // 4
    large = [piece for piece in backward.seen if piece[0] > T * V // 4]
    assert large == ([] if overwrite else [(T * V, torch.bfloat16)])
