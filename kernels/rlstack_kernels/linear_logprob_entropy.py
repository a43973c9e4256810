"""Logprob of the label and entropy of the softmax of a linear layer, without its [T, V] logits.

Letters: T tokens, H hidden size, V vocabulary size with padding, TP ranks of the group.
"""

from __future__ import annotations

from importlib.util import find_spec

import torch
import torch.distributed as dist
from torch import Tensor

from rlstack_kernels.liger_head import Liger, check_liger, ranks_of
from rlstack_kernels.linear_call import Call
from rlstack_kernels.linear_modes import Deferred, Eager, Reference, TokenGradients
from rlstack_kernels.measured import liger_is_faster, measured
from rlstack_kernels.options import (
    Entropy,
    HiddenGrad,
    Implementation,
    Mode,
    as_inv_temp,
    check_choice,
    check_labels,
    check_shape,
    columns_without_padding,
    resolve_mode,
)
from rlstack_kernels.reduction import Reduction
from rlstack_kernels.statistics import LogprobEntropy, wide


def linear_logprob_entropy(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    *,
    inv_temp: float | Tensor = 1.0,
    vocab_start: int = 0,
    vocab_valid: int | None = None,
    group: dist.ProcessGroup | None = None,
    ignore_index: int = -100,
    entropy: Entropy = "grad",
    mode: Mode = "auto",
    save_budget_bytes: int | None = None,
    token_gradients: TokenGradients | None = None,
    main_grad: Tensor | None = None,
    hidden_grad: HiddenGrad = "partial",
    implementation: Implementation = "auto",
) -> LogprobEntropy:
    """The labels' logprobs and the entropies under softmax(hidden @ weight.T * inv_temp), [T] fp32 each.

    The vocabulary may be cut over the ranks of `group`, evenly or not; every rank then gets the same bits.
    One call exchanges [4, T] fp32 once, in the forward pass.

    Args:
        hidden: [T, H], equal on all ranks; with hidden_grad="reduce_scatter" this rank's [T / TP, H].
        weight: [V / TP, H], this rank's rows.
        labels: [T] integers in the whole vocabulary.
        inv_temp: 1 / temperature, for all tokens or for each ([T]).
        vocab_start: the whole vocabulary's number of this rank's first row.
        vocab_valid: size of the whole vocabulary without padding. Rows from there on take no part, and their
            gradient is exactly 0. None: there is no padding.
        group: None for a vocabulary in one piece.
        ignore_index: the label of tokens that do not count: outputs 0, gradients exactly 0.
        entropy: grad; metric (a gradient that reaches it raises RuntimeError); none (it is None).
        mode: what the backward pass works from. save: the exponentials of all logits, [T, V / TP] in the
            hidden states' dtype, 6 T H V FLOPs in all. recompute: the logits once more, 8 T H V. eager: the
            gradients are computed in the forward pass, chunk by chunk, 6 T H V, for losses that know their
            gradient token by token. auto: save where that takes at most `save_budget_bytes`, else recompute.
        save_budget_bytes: None: 1 GiB on a GPU, 64 MiB elsewhere.
        token_gradients: for eager: what the backward pass will bring for a slice of the tokens. It is
            compared when it arrives, and RuntimeError raised if it is something else.
        main_grad: [V / TP, H] to which the weight's gradient is added (in the forward pass for eager);
            autograd then gets none for the weight.
        hidden_grad: partial: the hidden states' gradient is this rank's part of a sum over the group.
            all_reduce: it is that sum. reduce_scatter: hidden is cut along T (sequence parallelism), is
            gathered here and its gradient reduced and cut again. The reduction runs beside the last product.
        implementation: torch; triton (CUDA); liger (of the package liger-kernel: mode auto or recompute, one
            temperature, equal parts of the vocabulary and no padding over several ranks); reference (fp64,
            the logits of the whole vocabulary); auto: triton on a GPU that has it, or liger where that was
            measured to be faster (measured.py).

    Raises:
        ValueError: an unknown choice, shapes that do not go together, labels that are no integers, or (on the
            CPU) a label outside the vocabulary.
        ImportError: liger is chosen and not installed.
    """
    check_choice("entropy", entropy, Entropy)
    check_choice("mode", mode, Mode)
    check_choice("hidden_grad", hidden_grad, HiddenGrad)
    check_choice("implementation", implementation, Implementation)
    if (mode == "eager") != (token_gradients is not None):
        raise ValueError("mode 'eager' and token_gradients come together")
    reduction = Reduction(hidden_grad, group)
    check_shape("weight", weight, (weight.size(0), hidden.size(1)))
    if main_grad is not None:
        check_shape("main_grad", main_grad, weight.shape)
    check_labels(
        labels,
        num_tokens=reduction.num_tokens(hidden),
        ignore_index=ignore_index,
        columns=range(vocab_start, vocab_start + weight.size(0)),
        vocab_valid=vocab_valid,
        group=group,
    )
    num_saved_bytes = labels.size(0) * weight.size(0) * hidden.element_size()
    call = Call(
        vocab_start=vocab_start,
        num_valid=columns_without_padding(weight.size(0), vocab_start, vocab_valid),
        group=group,
        ignore_index=ignore_index,
        entropy=entropy,
        mode=resolve_mode(mode, num_bytes=num_saved_bytes, budget=save_budget_bytes, device=hidden.device),
        main_grad=main_grad,
        reduction=reduction,
        implementation=implementation,
        differentiate=torch.is_grad_enabled(),
    )
    if implementation == "auto" and _liger_is_faster(
        hidden, weight, mode=mode, inv_temp=inv_temp, group=group
    ):
        implementation = "liger"
    if implementation == "liger":
        check_liger(hidden, weight, mode=mode, inv_temp=inv_temp, vocab_valid=vocab_valid, call=call)
        if labels.size(0) > 0:  # it takes no empty tensors
            outputs = Liger.apply(hidden, weight, labels, 1.0 / float(inv_temp), call)
            return LogprobEntropy(outputs[0], None if entropy == "none" else outputs[1])
    operands = hidden, weight, labels, as_inv_temp(inv_temp, labels, wide(hidden.dtype)), call
    if implementation == "reference":
        outputs = Reference.apply(*operands)
    elif token_gradients is not None and call.differentiate:
        outputs = Eager.apply(*operands, token_gradients)
    else:
        outputs = Deferred.apply(*operands)
    return LogprobEntropy(outputs[0], None if entropy == "none" else outputs[1])


def _liger_is_faster(
    hidden: Tensor,
    weight: Tensor,
    *,
    mode: Mode,
    inv_temp: float | Tensor,
    group: dist.ProcessGroup | None,
) -> bool:
    """Return True if a measurement favours Liger for this call, and Liger can compute it.

    One rank was measured. Never with the deterministic algorithms of torch, which Liger does not promise.
    """
    plain = mode in ("auto", "recompute") and not isinstance(inv_temp, Tensor) and ranks_of(group) == 1
    if torch.are_deterministic_algorithms_enabled():
        return False
    if not (hidden.is_cuda and plain and measured() and find_spec("liger_kernel")):
        return False
    return liger_is_faster(
        measured(),
        gpu=torch.cuda.get_device_name(hidden.device),
        dtype=str(hidden.dtype).removeprefix("torch."),
        hidden=hidden.size(1),
        vocab=weight.size(0),
    )
