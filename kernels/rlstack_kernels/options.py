"""What a caller may choose, checked and resolved once per call."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from types import ModuleType
from typing import Literal, get_args

import torch
import torch.distributed as dist
from torch import Tensor

Entropy = Literal["none", "metric", "grad"]
Mode = Literal["auto", "save", "recompute", "eager"]
HiddenGrad = Literal["partial", "all_reduce", "reduce_scatter"]
Implementation = Literal["auto", "torch", "triton", "liger", "reference"]

GPU_SAVE_BUDGET_BYTES = 2**30
CPU_SAVE_BUDGET_BYTES = 2**26  # an eighth of the logits of 4096 tokens in fp32, with V = 32000


def check_choice(name: str, given: str, accepted: object) -> None:
    """Raise ValueError unless `given` is one of the strings of the Literal `accepted`."""
    choices: Sequence[str] = get_args(accepted)
    if given not in choices:
        raise ValueError(f"{name} is {given!r}; accepted: {', '.join(choices)}")


def blocks_of(implementation: Implementation, device: torch.device) -> ModuleType:
    """The module with `fold`, `logits_gradient` and `saved_gradient` for this device."""
    if implementation == "auto":
        implementation = "triton" if device.type == "cuda" and find_spec("triton") else "torch"
    if implementation == "triton":
        from rlstack_kernels import triton_blocks

        return triton_blocks
    from rlstack_kernels import torch_blocks

    return torch_blocks


def columns_without_padding(width: int, vocab_start: int, vocab_valid: int | None) -> int:
    """How many of a rank's `width` columns from `vocab_start` on are no padding."""
    return width if vocab_valid is None else min(max(vocab_valid - vocab_start, 0), width)


def as_inv_temp(inv_temp: float | Tensor, labels: Tensor, dtype: torch.dtype) -> Tensor | None:
    """[T] on the labels' device in `dtype`; None for 1."""
    if isinstance(inv_temp, Tensor):
        return inv_temp.detach().to(labels.device, dtype).expand(labels.size(0)).contiguous()
    if inv_temp == 1.0:
        return None
    return torch.full((labels.size(0),), inv_temp, dtype=dtype, device=labels.device)


def resolve_mode(mode: Mode, *, num_bytes: int, budget: int | None, device: torch.device) -> Mode:
    """What auto stands for, given what `save` would keep; without a budget the device has one."""
    if mode != "auto":
        return mode
    if budget is None:
        budget = GPU_SAVE_BUDGET_BYTES if device.type == "cuda" else CPU_SAVE_BUDGET_BYTES
    return "save" if num_bytes <= budget else "recompute"


def check_shape(name: str, given: Tensor, accepted: Sequence[int]) -> None:
    """Raise ValueError unless `given` has the shape `accepted`."""
    if tuple(given.shape) != tuple(accepted):
        raise ValueError(f"{name} has the shape {list(given.shape)}; {list(accepted)} goes with the rest")


def check_labels(
    labels: Tensor,
    *,
    num_tokens: int,
    ignore_index: int,
    columns: range,
    vocab_valid: int | None,
    group: dist.ProcessGroup | None,
) -> None:
    """Refuse labels that are no [T] integers, or that no rank has a column for; `columns` are this rank's.

    Without `vocab_valid` a group's vocabulary ends where nobody but its last rank knows; then only negative
    labels are found.

    Raises:
        ValueError: for a label's value on the CPU only. On a GPU that is an assertion on the device, which
            costs no wait.
    """
    check_shape("labels", labels, (num_tokens,))
    if labels.dtype not in (torch.int64, torch.int32):
        raise ValueError(f"labels are {labels.dtype}; int64 or int32 is accepted")
    in_one_piece = group is None or dist.get_world_size(group) == 1
    first = columns.start if in_one_piece else 0
    ends = [*([columns.stop] if in_one_piece else []), *([] if vocab_valid is None else [vocab_valid])]
    valid = labels >= first
    if ends:
        valid &= labels < min(ends)
    valid |= labels == ignore_index
    if labels.is_cuda:
        torch._assert_async(valid.all())
    elif not valid.all():
        raise ValueError(
            f"label {int(labels[~valid][0])} is neither in [{first}, {min(ends) if ends else 'V'}) "
            f"nor ignore_index = {ignore_index}"
        )


def refuse_entropy_gradient(entropy: Entropy, gradient: Tensor | None) -> None:
    """Raise RuntimeError if a gradient has reached an entropy that was computed without one."""
    if entropy != "grad" and gradient is not None:
        raise RuntimeError(
            f"the loss depends on an entropy that was computed with entropy={entropy!r}; "
            "ask for entropy='grad', or detach it"
        )
