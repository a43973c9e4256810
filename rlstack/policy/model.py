"""This rank's part of the policy: megatron-core's GPTModel, giving logprobs instead of logits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from rlstack_kernels.linear_logprob_entropy import linear_logprob_entropy
from torch import Tensor

from rlstack.config.schema import Policy
from rlstack.policy.architecture import Architecture
from rlstack.policy.backend import (
    ColumnParallelLinear,
    GPTModel,
    RowParallelLinear,
    VocabParallelEmbedding,
    copy_to_tensor_model_parallel_region,
    device,
    gather_from_sequence_parallel_region,
    parallel_state,
    set_tensor_model_parallel_attributes,
)
from rlstack.policy.hf_map import padded_vocab_size
from rlstack.policy.layers import layer_spec, transformer_config

# Bounds the logits that exist at once: [CHUNK_TOKENS, V / TP] fp32.
CHUNK_TOKENS = 1024


class PolicyModel(GPTModel):
    """The last stage returns [2, T] fp32: labels' logprobs and entropies; the others hidden states."""

    def __init__(self, architecture: Architecture, policy: Policy) -> None:
        config = transformer_config(architecture, policy)
        super().__init__(
            config,
            layer_spec(config),
            vocab_size=padded_vocab_size(architecture, policy.tensor_parallel),
            max_sequence_length=architecture.context_length,
            pre_process=parallel_state.is_pipeline_first_stage(),
            post_process=parallel_state.is_pipeline_last_stage(),
            position_embedding_type="rope",
            share_embeddings_and_output_weights=architecture.tied,
        )
        self.architecture = architecture

    def _postprocess(self, *, hidden_states: Tensor, labels: Tensor, **_: Any) -> Tensor:
        """The seam of megatron-core 0.16 and 0.17 (`output_processor=` of `forward` is its heir in 0.18).

        hidden_states: [T, 1, H], under sequence parallelism this rank's part of T. labels: [1, T].
        """
        if not self.post_process:
            return hidden_states
        group = self.pg_collection.tp
        if self.config.sequence_parallel:
            hidden = gather_from_sequence_parallel_region(
                hidden_states, tensor_parallel_output_grad=True, group=group
            )
        else:
            hidden = copy_to_tensor_model_parallel_region(hidden_states, group=group)
        weight = (
            self.shared_embedding_or_output_weight()
            if self.share_embeddings_and_output_weights
            else self.output_layer.weight
        )
        vocab_start = group.rank() * weight.size(0)
        logprobs, entropy = linear_logprob_entropy(
            hidden.squeeze(1),
            weight,
            labels.squeeze(0),
            vocab_start=vocab_start,
            vocab_valid=self.architecture.vocab_size - vocab_start,
            group=group,
            chunk_tokens=CHUNK_TOKENS,
        )
        return torch.stack([logprobs, entropy])


def build_model(architecture: Architecture, policy: Policy, folder: Path) -> PolicyModel:
    """This rank's part, on its device, with the weights not loaded; `folder` is the Hugging Face folder."""
    model = PolicyModel(architecture, policy).to(device())
    _mark_tensor_parallel(model)
    model.rotary_pos_emb.inv_freq = inverse_frequencies(architecture, folder).to(device())
    return model


def inverse_frequencies(architecture: Architecture, folder: Path) -> Tensor:
    """[head_dim / 2] fp32, of the rotary embedding, as transformers computes them.

    megatron-core's own scaling for Llama 3 has two of its parameters fixed.
    """
    if architecture.rope_type == "default":
        exponents = torch.arange(0, architecture.head_dim, 2, dtype=torch.float32) / architecture.head_dim
        return 1.0 / architecture.rope_theta**exponents
    from transformers import AutoConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    settings = AutoConfig.from_pretrained(folder)
    frequencies, _ = ROPE_INIT_FUNCTIONS[architecture.rope_type](settings, torch.device("cpu"))
    return frequencies


def _mark_tensor_parallel(model: PolicyModel) -> None:
    """Say which weights are cut, which upstream does only while initialising them.

    Without it the norm of the gradient counts replicated weights once per rank, and clipping goes wrong.
    """
    cut = {ColumnParallelLinear: 0, RowParallelLinear: 1, VocabParallelEmbedding: 0}
    for module in model.modules():
        if type(module) not in cut or module.weight is None:
            continue
        if not hasattr(module.weight, "tensor_model_parallel"):
            set_tensor_model_parallel_attributes(module.weight, True, cut[type(module)], 1)
