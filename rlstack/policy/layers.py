"""What the model is built of: Transformer Engine on a GPU, megatron-core's local layers on the CPU."""

from __future__ import annotations

import torch
from torch.nn import functional

from rlstack.config.arithmetic import Arithmetic
from rlstack.config.fusions import FusedKernels, fused_kernels
from rlstack.config.precision import training_precision
from rlstack.config.schema import Policy
from rlstack.model.architecture import Architecture
from rlstack.policy.backend import (
    ModuleSpec,
    TransformerBlockSubmodules,
    TransformerConfig,
    get_gpt_layer_local_spec,
    get_gpt_layer_with_transformer_engine_spec,
    get_num_layers_to_build,
    on_gpu,
)
from rlstack.policy.cpu.attention import PackedAttention
from rlstack.policy.cpu.norm import RMSNorm
from rlstack.policy.parallel_config import parallel_settings


def policy_kernels(policy: Policy) -> FusedKernels:
    """The fused kernels on the machine of this process."""
    return fused_kernels(policy, Arithmetic.detect(has_gpus=on_gpu()))


def fuse_weight_gradients(model: torch.nn.Module) -> int:
    """Have Transformer Engine's linear layers add weight gradients to `main_grad`; the number of them.

    The setting of megatron-core says it of the output layer too, which would demand Apex, and which the
    logprob kernel stands in for, with the same sums.
    """
    fusing = [module for module in model.modules() if hasattr(module, "fuse_wgrad_accumulation")]
    for module in fusing:
        module.fuse_wgrad_accumulation = True  # type: ignore[assignment]
    return len(fusing)


def transformer_config(architecture: Architecture, policy: Policy) -> TransformerConfig:
    """megatron-core's settings for `architecture` in the layout of `policy`."""
    precision = training_precision(policy)
    fused = policy_kernels(policy)
    dtype = getattr(torch, precision.dtype)
    return TransformerConfig(
        num_layers=architecture.num_layers,
        hidden_size=architecture.hidden_size,
        num_attention_heads=architecture.num_heads,
        num_query_groups=architecture.num_kv_heads,
        kv_channels=architecture.head_dim,
        ffn_hidden_size=architecture.ffn_size,
        normalization="RMSNorm",
        layernorm_epsilon=architecture.norm_eps,
        gated_linear_unit=True,
        activation_func=functional.silu,
        add_bias_linear=False,
        add_qkv_bias=architecture.qkv_bias,
        qk_layernorm=architecture.qk_norm,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        # The weights come from a file.
        perform_initialization=False,
        use_cpu_initialization=not on_gpu(),
        bias_activation_fusion=fused.swiglu,
        apply_rope_fusion=fused.rope,
        bias_dropout_fusion=False,
        masked_softmax_fusion=False,
        # Of the output layer it needs Apex; see fuse_weight_gradients.
        gradient_accumulation_fusion=False,
        params_dtype=dtype,
        pipeline_dtype=dtype,
        bf16=dtype is torch.bfloat16,
        deterministic_mode=torch.are_deterministic_algorithms_enabled(),  # run.deterministic
        **precision.fp8,
        # No division inside the schedules: the gradients are divided once by the step's number of examples.
        calculate_per_token_loss=True,
        **parallel_settings(policy, num_layers=architecture.num_layers),
    )


def layer_spec(config: TransformerConfig, *, vp_stage: int | None) -> ModuleSpec | TransformerBlockSubmodules:
    """What a chunk of this rank is to be built of; vp_stage: which chunk of a virtual pipeline."""
    if on_gpu():
        return get_gpt_layer_with_transformer_engine_spec(qk_layernorm=config.qk_layernorm)
    spec = get_gpt_layer_local_spec(normalization="RMSNorm", qk_layernorm=config.qk_layernorm)
    layer = spec.submodules
    layer.input_layernorm = layer.pre_mlp_layernorm = RMSNorm
    attention = layer.self_attention.submodules
    attention.core_attention = PackedAttention
    if config.qk_layernorm:
        attention.q_layernorm = attention.k_layernorm = RMSNorm
    num_layers = get_num_layers_to_build(config, vp_stage)
    return TransformerBlockSubmodules(layer_specs=[spec] * num_layers, layer_norm=RMSNorm)
