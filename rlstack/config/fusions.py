"""The fused kernels of the policy's layers, by what a machine has. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from rlstack.config.arithmetic import Arithmetic
from rlstack.config.schema import Fusions, Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class FusedKernels:
    """Bias, dropout and residual stay apart: with neither bias nor dropout they are one addition."""

    rope: bool = False  # rotary embeddings of packed sequences, in a kernel that needs no lengths on the host
    swiglu: bool = False  # silu of the gate times up, and its gradient: one kernel each, compiled by torch
    weight_gradients: bool = False  # products that add to main_grad, instead of to a gradient added up after


def fused_kernels(policy: Policy, machine: Arithmetic) -> FusedKernels:
    """The kernels that `policy.fusions` means on `machine`; none without a GPU.

    All versions of Transformer Engine that the policy accepts have its two kernels
    (config/validate_precision.py); torch compiles for a GPU by means of Triton.
    """
    on_gpu = machine.compute_capability is not None
    if not on_gpu or policy.fusions is Fusions.none:
        return FusedKernels()
    has_engine = machine.transformer_engine is not None
    return FusedKernels(rope=has_engine, swiglu=machine.has_triton, weight_gradients=has_engine)
