"""Ways to the labels' logprobs and the entropies: the project's operators, and what else there is.

Nothing but torch is needed; the others take part where they are installed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from kernel_cases import Case
from rlstack_kernels import linear_logprob_entropy, logprob_entropy
from rlstack_kernels.options import Implementation, Mode, resolve_mode
from torch import Tensor

Outputs = tuple[Tensor, Tensor | None]
Run = Callable[..., Outputs]  # of a case, and its hidden states and weight, or its logits

FORWARD, BACKWARD = "forward", "forward_backward"


@dataclass(frozen=True, slots=True)
class Variant:
    """load: makes the function to measure, or raises why it cannot be had here.

    num_products: of 2 THV FLOPs, forward and backward. compiles: in its first call. overwrites: the logits
    that it is given.
    """

    name: str
    load: Callable[[], Run]
    from_logits: bool = False
    entropy: bool = True
    num_products: int = 3
    passes: tuple[str, ...] = (FORWARD, BACKWARD)
    compiles: bool = False
    overwrites: bool = False
    needs_cuda: bool = False


def variants(case: Case) -> list[Variant]:
    """All of them, whether they can be had for this case or not."""
    size = case.logits.nbytes
    default = resolve_mode("auto", num_bytes=size, budget=None, device=case.logits.device)
    given = partial(Variant, from_logits=True)
    return [
        Variant("rlstack", lambda: _own("auto"), num_products=3 if default == "save" else 4),
        Variant("rlstack liger", lambda: _own("recompute", implementation="liger"), num_products=4),
        Variant("rlstack save", lambda: _own("save"), passes=(BACKWARD,)),
        Variant("rlstack eager", lambda: _own("eager"), passes=(BACKWARD,)),
        Variant("rlstack recompute", lambda: _own("recompute"), passes=(BACKWARD,), num_products=4),
        Variant("torch", lambda: _torch),
        Variant("torch compiled", lambda: torch.compile(_torch, dynamic=False), compiles=True),
        Variant("torch chunked", _torch_chunked, entropy=False),
        Variant("trl chunked", _trl, num_products=4),
        Variant("liger scaled", _liger_scaled, num_products=4),
        Variant("liger", _liger, entropy=False, needs_cuda=True),
        Variant("cce", lambda: _cut("cce"), entropy=False, num_products=4, needs_cuda=True),
        Variant("cce exact", lambda: _cut("cce_exact"), entropy=False, num_products=4, needs_cuda=True),
        Variant("verl", _verl, num_products=4, needs_cuda=True),
        given("rlstack logits", lambda: partial(_own_of_logits, overwrite=False)),
        given("torch logits", lambda: _torch_of_logits),
        given(
            "torch compiled logits",
            lambda: torch.compile(_torch_of_logits, dynamic=False),
            compiles=True,
        ),
        given(
            "rlstack logits in place",
            lambda: partial(_own_of_logits, overwrite=True),
            passes=(BACKWARD,),
            overwrites=True,
        ),
        given("megatron logits", _megatron, entropy=False, compiles=True, overwrites=True),
    ]


def _own(mode: Mode, *, implementation: Implementation | None = None) -> Run:
    """implementation: None for the project's own kernels on the case's device."""

    def run(case: Case, hidden: Tensor, weight: Tensor) -> Outputs:
        def promised(rows: slice, _: object) -> tuple[Tensor, Tensor]:
            return case.grad_logprobs[rows], case.grad_entropy[rows]

        return linear_logprob_entropy(
            hidden,
            weight,
            case.labels,
            mode=mode,
            token_gradients=promised if mode == "eager" else None,
            implementation=implementation or ("triton" if hidden.is_cuda else "torch"),
        )

    return run


def _own_of_logits(case: Case, logits: Tensor, *, overwrite: bool) -> Outputs:
    return logprob_entropy(logits, case.labels, overwrite_logits=overwrite)


def _torch(case: Case, hidden: Tensor, weight: Tensor) -> Outputs:
    return _torch_of_logits(case, hidden @ weight.t())


def _torch_of_logits(case: Case, logits: Tensor) -> Outputs:
    logprobs = torch.log_softmax(logits.float(), dim=-1)
    return logprobs.gather(1, case.labels[:, None])[:, 0], -(logprobs.exp() * logprobs).sum(-1)


def _torch_chunked() -> Run:
    settings: dict[str, Any] = {"reduction": "none", "options": torch.nn.LinearCrossEntropyOptions()}
    return lambda case, *inputs: (-F.linear_cross_entropy(*inputs, case.labels, **settings), None)


def _trl() -> Run:
    from trl.kernels import ChunkedLogProbFunction
    from trl.trainer.utils import _CHUNKED_LOGPROB_CHUNK_SIZE as CHUNK

    def run(case: Case, hidden: Tensor, weight: Tensor) -> Outputs:
        settings = (1.0, CHUNK, None, 1.0, ("entropy",))  # temperature, chunk, soft cap, scale, outputs
        logprobs, entropy, *_ = ChunkedLogProbFunction.apply(hidden, weight, None, case.labels, *settings)
        return logprobs, entropy

    return run


def _liger_scaled() -> Run:
    from liger_kernel.ops.fused_linear_scaled_cross_entropy import LigerFusedLinearScaledCrossEntropyFunction

    def run(case: Case, *inputs: Tensor) -> Outputs:
        settings = (1.0, -100, 1, True)  # temperature, ignored label, tiles per cluster, entropy
        loss, entropy = LigerFusedLinearScaledCrossEntropyFunction.apply(*inputs, case.labels, *settings)
        return -loss, entropy

    return run


def _liger() -> Run:
    from liger_kernel.transformers.functional import liger_fused_linear_cross_entropy

    settings = {"reduction": "none", "accum_dtype": torch.float32}
    return lambda case, *inputs: (-liger_fused_linear_cross_entropy(*inputs, case.labels, **settings), None)


def _cut(implementation: str) -> Run:
    from cut_cross_entropy import linear_cross_entropy

    settings = {"reduction": "none", "impl": implementation}
    return lambda case, *inputs: (-linear_cross_entropy(*inputs, case.labels, **settings), None)


def _verl() -> Run:
    from verl.utils.kernel.linear_cross_entropy import linear_cross_entropy

    return lambda case, *inputs: linear_cross_entropy(*inputs, case.labels, 1.0, "none")


def _megatron() -> Run:
    """It rounds the logits' gradient to bf16."""
    import_module("rlstack.policy.backend")  # adapts megatron-core where there is no CUDA
    from megatron.core.fusions.fused_cross_entropy import fused_vocab_parallel_cross_entropy

    if not dist.is_initialized():
        dist.init_process_group(store=dist.HashStore(), rank=0, world_size=1)
    group = dist.group.WORLD

    def run(case: Case, logits: Tensor) -> Outputs:
        loss = fused_vocab_parallel_cross_entropy(logits[:, None], case.labels[:, None], group)
        return -loss[:, 0], None

    return run
