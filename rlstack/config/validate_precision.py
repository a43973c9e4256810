"""What is refused of precisions: layouts that FP8 cannot cut, machines that cannot compute so. Pure.

The driver asks about its own machine, the policy's ranks and the engines about theirs, which may be others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from rlstack.config.arithmetic import Arithmetic, Version, show_version
from rlstack.config.precision import FP8_MULTIPLES, rollout_precision
from rlstack.config.schema import (
    Fp8Recipe,
    Fp8Scaling,
    Landing,
    LogprobKernel,
    Policy,
    Precision,
    RunConfig,
)
from rlstack.config.validate_parallel import PolicyShape
from rlstack.errors import ConfigError

# transformer_engine/pytorch/quantization.py, _compute_fp8_support and _compute_fp8_block_scaling_support.
ADA: Version = (8, 9)
HOPPER: Version = (9, 0)
BLOCKWISE_CUDA: Version = (12, 9)
# Of Transformer Engine: megatron/core/fp8_utils.py, get_fp8_recipe.
FP8_ENGINE: dict[Fp8Recipe, Version] = {
    Fp8Recipe.blockwise: (2, 3),
    Fp8Recipe.tensorwise: (2, 2),
    Fp8Recipe.delayed: (2, 1),
}
# Packed sequences attend in fp32 from 2.12 on: before, every kernel for them was of 16 bits
# (pytorch/attention/dot_product_attention/utils.py, get_attention_backend).
LAYERS_ENGINE: dict[Precision, Version] = {Precision.bf16: (2, 1), Precision.fp32: (2, 12)}


class LayerShape(PolicyShape, Protocol):
    """Of a layer's matrices; `rlstack.model.architecture.Architecture` has it."""

    @property
    def hidden_size(self) -> int: ...
    @property
    def head_dim(self) -> int: ...


def precision_problems(config: RunConfig, shape: LayerShape) -> Iterator[str]:
    """What cannot work on any machine."""
    policy = config.policy
    if policy.precision is Precision.fp8:
        key, multiple = "policy.tensor_parallel", FP8_MULTIPLES[policy.fp8.recipe]
        recipe = f"policy.fp8.recipe = {policy.fp8.recipe.value}"
        yield from _uneven(key, policy.tensor_parallel, shape, multiple, recipe)
        yield from _bf16_layers(policy, shape)
    yield from rollout_problems(config, shape)


def rollout_problems(config: RunConfig, shape: LayerShape) -> Iterator[str]:
    """As `precision_problems`, of the engines alone."""
    rollout = config.rollout
    if rollout_precision(config) is not Precision.fp8:
        return
    if config.transfer.landing is Landing.direct:
        yield (
            "transfer.landing = direct: auto | staged is accepted with rollout.precision = fp8, for weights "
            "have to be quantised after each sync; set it to auto"
        )
    multiple = 128 if rollout.fp8_scaling is Fp8Scaling.block else 16
    scaling = f"rollout.fp8_scaling = {rollout.fp8_scaling.value}"
    yield from _uneven("rollout.tensor_parallel", rollout.tensor_parallel, shape, multiple, scaling)


def policy_machine_problems(policy: Policy, machine: Arithmetic) -> Iterator[str]:
    """What the policy asks for and `machine` cannot compute."""
    is_fp8 = policy.precision is Precision.fp8
    given = f"policy.precision = {policy.precision.value}"
    if policy.logprob_kernel is LogprobKernel.liger:
        yield from _liger(policy, machine)
    if machine.compute_capability is None:
        if is_fp8:
            yield f"{given}: it needs an NVIDIA GPU, and there is none; set it to bf16 or fp32"
        if policy.logprob_kernel is LogprobKernel.triton:
            yield "policy.logprob_kernel = triton: it needs an NVIDIA GPU, and there is none; set it to auto"
        return
    if policy.logprob_kernel is LogprobKernel.triton and not machine.has_triton:
        yield (
            "policy.logprob_kernel = triton: its package is not installed; pip install triton, or set it to "
            "auto"
        )
    if is_fp8 and machine.compute_capability < ADA:
        yield (
            f"{given}: it needs a GPU of compute capability 8.9 or more (Ada, Hopper, later), and this has "
            f"{show_version(machine.compute_capability)}; set it to bf16"
        )
        return
    if is_fp8:
        given += f" with policy.fp8.recipe = {policy.fp8.recipe.value}"
    least = FP8_ENGINE[policy.fp8.recipe] if is_fp8 else LAYERS_ENGINE[policy.precision]
    if machine.transformer_engine is None or machine.transformer_engine < least:
        remedy = "" if policy.precision is Precision.bf16 else ", or set policy.precision=bf16"
        yield (
            f"{given}: on a GPU it needs Transformer Engine {show_version(least)} or later, and there is "
            f"{show_version(machine.transformer_engine)}; pip install '.[gpu]'{remedy}"
        )
    if is_fp8 and policy.fp8.recipe is Fp8Recipe.blockwise:
        yield from _blockwise(given, machine)
    if policy.precision is Precision.fp32 and policy.context_parallel > 1:
        # pytorch/attention/dot_product_attention/utils.py, get_attention_backend.
        yield (
            f"policy.context_parallel = {policy.context_parallel}: 1 is accepted with {given} on a GPU: "
            "Transformer Engine's only attention in fp32 takes whole sequences; set it to 1, or set "
            "policy.precision=bf16"
        )


def _liger(policy: Policy, machine: Arithmetic) -> Iterator[str]:
    given = "policy.logprob_kernel = liger"
    on_hopper = machine.compute_capability == HOPPER and policy.tensor_parallel == 1
    if not machine.has_liger:
        yield f"{given}: its package is not installed; pip install '.[liger]', or set it to auto"
        return
    if on_hopper and policy.precision is Precision.fp32:
        # ops/cutedsl/ops/fused_scaled_cross_entropy_sm90.py, _validate_inputs.
        yield f"{given}: policy.precision = bf16 | fp8 is accepted with it on Hopper; set it to auto"
    if on_hopper and not machine.has_cute:
        yield (
            f"{given}: on Hopper it needs nvidia-cutlass-dsl, which is not installed; pip install "
            "'.[liger]', or set it to auto"
        )


def _blockwise(given: str, machine: Arithmetic) -> Iterator[str]:
    assert machine.compute_capability is not None
    remedy = "set policy.fp8.recipe=tensorwise"
    if machine.compute_capability < HOPPER:
        found = show_version(machine.compute_capability)
        yield f"{given}: it needs a GPU of compute capability 9.0 or more, and this has {found}; {remedy}"
    if machine.cuda is None or machine.cuda < BLOCKWISE_CUDA:
        found = show_version(machine.cuda)
        yield f"{given}: it needs torch built for CUDA 12.9 or later, and this is for {found}; {remedy}"


def engine_machine_problems(config: RunConfig, machine: Arithmetic) -> Iterator[str]:
    """What the engines ask for and `machine` cannot compute."""
    precision = rollout_precision(config)
    if precision is Precision.fp32:
        return
    given = f"rollout.precision = {config.rollout.precision.value}"
    if config.rollout.precision.value != precision.value:
        given += f", which is {precision.value} with policy.precision = {config.policy.precision.value}"
    if machine.compute_capability is None:
        if machine.has_amx:
            yield (
                f"{given}: fp32 is accepted on this machine, whose processor advertises AMX: vLLM's "
                "processes end with an illegal instruction on virtual machines that do; set "
                "rollout.precision=fp32"
            )
        if precision is Precision.fp8 and config.rollout.fp8_scaling is not Fp8Scaling.channel:
            yield (
                f"rollout.fp8_scaling = {config.rollout.fp8_scaling.value}: channel is accepted without a "
                "GPU, where vLLM has no kernel for the others; set it to channel"
            )
    elif precision is Precision.fp8 and machine.compute_capability < ADA:
        yield (
            f"{given}: it needs a GPU of compute capability 8.9 or more (Ada, Hopper, later), and this has "
            f"{show_version(machine.compute_capability)}; set it to bf16"
        )


def refuse(found: Iterable[str]) -> None:
    """Raise ConfigError if there is anything in `found`."""
    if problems := list(found):
        raise ConfigError("\n".join(problems))


def _bf16_layers(policy: Policy, shape: LayerShape) -> Iterator[str]:
    """Mirrors megatron-core's TransformerConfig.__post_init__."""
    most = shape.num_layers // policy.pipeline_parallel
    for name in ("bf16_layers_at_start", "bf16_layers_at_end"):
        num_layers = getattr(policy.fp8, name)
        if num_layers > 0 and policy.fp8.recipe is Fp8Recipe.delayed:
            yield (
                f"policy.fp8.{name} = {num_layers}: 0 is accepted with policy.fp8.recipe = delayed, whose "
                "scales are of all layers or none; set it to 0, or take another recipe"
            )
        elif num_layers > most:
            yield (
                f"policy.fp8.{name} = {num_layers}: at most {most} is accepted, the layers of a pipeline "
                "stage; lower it"
            )


def _uneven(key: str, size: int, shape: LayerShape, multiple: int, asked: str) -> Iterator[str]:
    """Dimensions of a rank's matrices that are no multiples of `multiple`; those of vLLM are cut alike."""
    num_kv_heads = max(shape.num_kv_heads // size, 1)  # vLLM copies them where there are fewer than ranks
    num_heads = shape.num_heads // size
    counts = {
        "hidden columns": shape.hidden_size,
        "columns of attention": num_heads * shape.head_dim,
        "rows of queries, keys and values": (num_heads + 2 * num_kv_heads) * shape.head_dim,
        "feed-forward columns": shape.ffn_size // size,
    }
    if uneven := [f"{count} {what}" for what, count in counts.items() if count % multiple]:
        remedy = "lower it, or use bf16" if size > 1 else "use bf16"
        yield (
            f"{key} = {size}: each rank has {' and '.join(uneven)}, where {asked} takes multiples of "
            f"{multiple}; {remedy}"
        )
