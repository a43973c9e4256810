"""Liger's fused linear cross entropy behind this package's operator.

For liger-kernel 0.8.3 to 0.8.5, ops/fused_linear_scaled_cross_entropy.py. On a Hopper GPU it has kernels of
its own, over several ranks only with liger-cute-kernels; elsewhere it is torch in chunks of 512 tokens, which
computes the logits in the operands' dtype. It always computes them twice, and adds up the weight's gradient
in the weight's dtype.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from rlstack_kernels.linear_call import Call
from rlstack_kernels.options import refuse_entropy_gradient
from rlstack_kernels.statistics import wide

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


class Liger(torch.autograd.Function):
    """Liger's graph behind the operator's inputs, checks and destinations."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, labels: Tensor, temperature: float, call: Call
    ) -> tuple[Tensor, Tensor | None]:
        """Logprobs and entropies, [T] fp32 each; `ctx` keeps Liger's graph."""
        ctx.set_materialize_grads(False)
        gathered, valid = call.reduction.gather(hidden), weight[: call.num_valid]
        operands = [tensor.detach().contiguous() for tensor in (gathered, valid)]
        for operand, needed in zip(operands, ctx.needs_input_grad, strict=False):
            operand.requires_grad_(needed)
        with torch.set_grad_enabled(call.differentiate):
            outputs = _outputs(operands[0], operands[1], labels.long(), temperature, call)
        ctx.call, ctx.operands, ctx.outputs, ctx.weight = call, operands, outputs, weight.detach()
        nll, *entropy = (output.detach().to(wide(hidden.dtype)) for output in outputs)
        return -nll, entropy[0] if entropy else None

    @staticmethod
    def backward(ctx: Any, *arrived: Tensor | None) -> tuple[Tensor | None, ...]:
        """The gradients of that graph; Liger has reduced that of the hidden states already."""
        call: Call = ctx.call
        refuse_entropy_gradient(call.entropy, arrived[1])
        by_logprobs, by_entropy = arrived
        late = [None if by_logprobs is None else -by_logprobs, by_entropy][: len(ctx.outputs)]
        taken = [
            torch.zeros_like(output) if grad is None else grad.to(output.dtype)
            for output, grad in zip(ctx.outputs, late, strict=True)
        ]
        needed = [operand for operand in ctx.operands if operand.requires_grad]
        found = iter(torch.autograd.grad(ctx.outputs, needed, taken, retain_graph=True))
        of_hidden, of_weight = (next(found) if o.requires_grad else None for o in ctx.operands)
        hidden = None if of_hidden is None else call.reduction.share(of_hidden)
        return hidden, _weight_gradient(call, ctx.weight, of_weight), None, None, None


def check_liger(
    hidden: Tensor,
    weight: Tensor,
    *,
    mode: str,
    inv_temp: float | Tensor,
    vocab_valid: int | None,
    call: Call,
) -> None:
    """Refuse what Liger cannot compute. Raises ValueError, or ImportError where it is not installed."""
    if find_spec("liger_kernel") is None:
        raise ImportError("implementation 'liger' needs its package: pip install 'rlstack-megatron[liger]'")
    if mode not in ("auto", "recompute"):
        raise ValueError(f"mode is {mode!r}; auto or recompute is accepted with implementation 'liger'")
    if isinstance(inv_temp, Tensor):
        raise ValueError("inv_temp is a tensor; one number is accepted with implementation 'liger'")
    if hidden.dtype not in DTYPES or weight.dtype != hidden.dtype:
        raise ValueError(
            f"hidden is {hidden.dtype} and weight {weight.dtype}; both float32, bfloat16 or float16 are "
            "accepted with implementation 'liger'"
        )
    size = ranks_of(call.group)
    if size > 1:
        whole = size * weight.size(0)
        if vocab_valid is not None and vocab_valid != whole:
            raise ValueError(
                f"vocab_valid is {vocab_valid} of {whole} rows on {size} ranks; implementation 'liger' takes "
                "no padding over several ranks: choose another one, or a number of ranks that needs none"
            )
        first = dist.get_rank(call.group) * weight.size(0)
        if call.vocab_start != first:
            raise ValueError(
                f"vocab_start is {call.vocab_start}; {first} is accepted with implementation 'liger', for "
                "which all ranks hold equal parts"
            )


def ranks_of(group: dist.ProcessGroup | None) -> int:
    """Of the group that the vocabulary is cut over."""
    return 1 if group is None else dist.get_world_size(group)


def _outputs(
    hidden: Tensor, weight: Tensor, labels: Tensor, temperature: float, call: Call
) -> tuple[Tensor, ...]:
    """Minus the logprobs and, unless it is not wanted, the entropies, with Liger's graph."""
    from liger_kernel.ops import fused_linear_scaled_cross_entropy as liger

    wanted, ignored = call.entropy != "none", call.ignore_index
    if ranks_of(call.group) == 1:
        single = liger.LigerFusedLinearScaledCrossEntropyFunction.apply
        outputs = single(hidden, weight, labels, temperature, ignored, 1, wanted)
    elif hidden.is_cuda:
        several = liger.LigerFusedLinearScaledCrossEntropyTPFunction.apply
        outputs = several(hidden, weight, labels, call.group, temperature, ignored, 1, wanted)
    else:
        # What the public function runs where it has no kernel; it refuses tensors of the CPU before.
        fallback: Callable[..., Any] = liger._apply_tp_fallback
        outputs = fallback(hidden, weight, labels, temperature, ignored, wanted, call.group)
    return outputs if isinstance(outputs, tuple) else (outputs,)


def _weight_gradient(call: Call, weight: Tensor, of_valid: Tensor | None) -> Tensor | None:
    """[V / TP, H] with zeros for padding; None where it has been added to main_grad, or is not needed."""
    if of_valid is None:
        return None
    if call.main_grad is not None:
        call.main_grad[: call.num_valid] += of_valid
        return None
    if call.num_valid == weight.size(0):
        return of_valid
    gradient = torch.zeros_like(weight)
    gradient[: call.num_valid] = of_valid
    return gradient
