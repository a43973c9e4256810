"""What the settings of precision come to on both sides: dtypes, FP8 recipes, padding. Pure.

Weights are fp32 or bf16 on every path between the parts: checkpoints, exports, the reference and the transfer
know nothing of FP8. The policy's layers quantise their operands as they compute; an engine quantises what it
was sent after it has arrived.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rlstack.config.schema import (
    Fp8,
    Fp8Format,
    Fp8Recipe,
    Fp8Scaling,
    Policy,
    Precision,
    Rollout,
    RolloutPrecision,
    RunConfig,
)

# What each dimension of a product in FP8 is a multiple of. Transformer Engine's kernels take multiples of 16
# (transformer_engine/pytorch/utils.py, assert_dim_for_fp8_exec); a block with a scale of its own has 128 of
# each (pytorch/tensor/float8_blockwise_tensor.py, Float8BlockQuantizer.is_quantizable).
FP8_MULTIPLES = {Fp8Recipe.blockwise: 128, Fp8Recipe.tensorwise: 16, Fp8Recipe.delayed: 16}

_DTYPES = {Precision.fp32: "float32", Precision.bf16: "bfloat16", Precision.fp8: "bfloat16"}

# vLLM quantises weights that were stored without scales: docs.vllm.ai, features/quantization/online.
_ONLINE = {
    Fp8Scaling.channel: "fp8_per_channel",
    Fp8Scaling.tensor: "fp8_per_tensor",
    Fp8Scaling.block: "fp8_per_block",
}

# What a trainer's and an engine's arithmetic may differ by on the probe: nats, on average over its tokens.
# Measured in BF16 on a CPU without AVX512-BF16, where vLLM's kernels cut off instead of rounding: 0.029 on a
# prompt of the tiny task, whose model has not learnt to write prompts; 0.008 on a random one of 24 layers.
_PROBE_LIMITS = {Precision.fp32: 1e-3, Precision.bf16: 0.06, Precision.fp8: 0.5}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingPrecision:
    """Of the policy. Its gradients, and the weights that the optimiser steps, are fp32 whatever is set."""

    dtype: str  # of the weights and of activations, by torch's name
    fp8: Mapping[str, Any]  # megatron-core's settings of FP8 (TransformerConfig); {} without it
    token_multiple: int  # what the number of tokens that a rank computes on is to be a multiple of


@dataclass(frozen=True, slots=True, kw_only=True)
class EnginePrecision:
    """Of the engines, under vLLM's names."""

    dtype: str  # of the weights as they arrive, and of activations, by torch's name
    quantization: str | None  # what vLLM does to the weights then
    head_dtype: str  # of the logits and what they are added up in, by torch's name


def training_precision(policy: Policy) -> TrainingPrecision:
    """What `policy.precision` and `policy.fp8` come to."""
    is_fp8 = policy.precision is Precision.fp8
    return TrainingPrecision(
        dtype=_DTYPES[policy.precision],
        fp8=_megatron(policy.fp8) if is_fp8 else {},
        token_multiple=FP8_MULTIPLES[policy.fp8.recipe] if is_fp8 else 1,
    )


def engine_precision(config: RunConfig) -> EnginePrecision:
    """What `rollout.precision` comes to."""
    precision = rollout_precision(config)
    is_fp8, dtype = precision is Precision.fp8, _DTYPES[precision]
    return EnginePrecision(
        dtype=dtype,
        quantization=quantization_of(config.rollout) if is_fp8 else None,
        head_dtype=_DTYPES[Precision.fp32] if config.rollout.fp32_head else dtype,
    )


def rollout_precision(config: RunConfig) -> Precision:
    """The engines' precision, with `auto` resolved.

    A policy in FP8 is sampled from in bf16, which is what its weights are: FP8 in the engines is a second
    error beside the policy's own, larger where every token has its share in it, and is to be asked for.
    """
    wanted = config.rollout.precision
    if wanted is not RolloutPrecision.auto:
        return Precision(wanted.value)
    return Precision.bf16 if config.policy.precision is Precision.fp8 else config.policy.precision


def quantization_of(rollout: Rollout) -> str:
    """vLLM's name of what FP8 engines do to their weights."""
    return _ONLINE[rollout.fp8_scaling]


def unquantised_layers(config: RunConfig, *, num_layers: int) -> list[int]:
    """The layers, from 0, that FP8 engines leave in bf16 because a policy in FP8 does."""
    if not (config.policy.precision is rollout_precision(config) is Precision.fp8):
        return []
    fp8 = config.policy.fp8
    layers = range(num_layers)
    return [*layers[: fp8.bf16_layers_at_start], *layers[max(0, num_layers - fp8.bf16_layers_at_end) :]]


def probe_limit(config: RunConfig) -> float:
    """How far the logprobs of both sides may be apart on a probe: the less precise of them says it."""
    return max(_PROBE_LIMITS[config.policy.precision], _PROBE_LIMITS[rollout_precision(config)])


def _megatron(fp8: Fp8) -> dict[str, Any]:
    """The fields of megatron-core 0.16.1 (TransformerConfig) for FP8.

    fp8_param stays off: weights in FP8 would be Transformer Engine's tensors, with scales of their own, which
    the reference's exchange, the transfer and the export would have to carry.
    """
    usual = Fp8Format.e4m3 if fp8.recipe is Fp8Recipe.blockwise else Fp8Format.hybrid
    return {
        "fp8": (usual if fp8.format is Fp8Format.auto else fp8.format).value,
        "fp8_recipe": fp8.recipe.value,
        "fp8_margin": fp8.margin,
        "fp8_amax_history_len": fp8.amax_history_len,
        "fp8_amax_compute_algo": fp8.amax_compute_algo.value,
        # Delayed scales are agreed on after every micro-batch. Data-parallel ranks may have different numbers
        # of them, and would wait for each other for ever.
        "tp_only_amax_red": True,
        "first_last_layers_bf16": fp8.bf16_layers_at_start > 0 or fp8.bf16_layers_at_end > 0,
        "num_layers_at_start_in_bf16": fp8.bf16_layers_at_start,
        "num_layers_at_end_in_bf16": fp8.bf16_layers_at_end,
    }
