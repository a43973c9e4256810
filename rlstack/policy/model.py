"""This rank's part of the policy: megatron-core's GPTModel, giving logprobs instead of logits.

Hidden states and the output layer's weight go straight into `rlstack_kernels.linear_logprob_entropy`, for
training and for the forward passes of the reference alike: how much of the logits
exists at once is its affair.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rlstack_kernels import LogprobEntropy, linear_logprob_entropy
from torch import Tensor

from rlstack.config.overlap import overlap_of
from rlstack.config.parallel import policy_layers
from rlstack.config.precision import training_precision
from rlstack.config.schema import Policy
from rlstack.model.architecture import Architecture
from rlstack.model.weight_names import padded_vocab_size
from rlstack.policy.backend import (
    ColumnParallelLinear,
    GPTModel,
    RowParallelLinear,
    TransformerConfig,
    VocabParallelEmbedding,
    device,
    on_gpu,
    parallel_state,
    set_tensor_model_parallel_attributes,
)
from rlstack.policy.layers import fuse_weight_gradients, layer_spec, policy_kernels, transformer_config

_BYTES_PER_GIB = 1024**3


class PolicyModel(torch.nn.Module):
    """What this rank holds of the policy: the chunks of its pipeline stage, in the model's order.

    There is one of them, or several under a virtual pipeline; a micro-batch passes through the other stages
    between two of them.
    """

    def __init__(self, architecture: Architecture, policy: Policy, *, entropy_gradient: bool) -> None:
        """entropy_gradient: whether the loss may depend on the entropies; otherwise they are a metric."""
        super().__init__()
        self.architecture = architecture
        self.token_multiple = training_precision(policy).token_multiple  # of what a rank computes on
        self.offloads_optimizer = policy.optimizer_offload
        self.overlap = overlap_of(policy, on_gpu=on_gpu())
        self.stages = policy_layers(policy, architecture.num_layers)  # of every rank, as [stage][chunk]
        self.config = transformer_config(architecture, policy)
        self.chunks = [
            ModelChunk(architecture, policy, self.config, index, entropy_gradient=entropy_gradient)
            for index in range(policy.virtual_pipeline)
        ]
        for index, chunk in enumerate(self.chunks):
            self.add_module(f"chunk{index}", chunk)

    def sharded_state_dict(self, metadata: dict[str, Any] | None = None) -> dict[str, Any]:
        """megatron-core's, of all chunks, under the names of `named_parameters`."""
        return {
            f"chunk{index}.{name}": entry
            for index, chunk in enumerate(self.chunks)
            for name, entry in chunk.sharded_state_dict(metadata=metadata).items()
        }


class ModelChunk(GPTModel):
    """Hidden states; of the model's last chunk the labels' logprobs and entropies, [T] fp32 each."""

    def __init__(
        self,
        architecture: Architecture,
        policy: Policy,
        config: TransformerConfig,
        index: int,
        *,
        entropy_gradient: bool,
    ) -> None:
        """index: of the chunk in its stage."""
        vp_stage = index if policy.virtual_pipeline > 1 else None
        super().__init__(
            config,
            layer_spec(config, vp_stage=vp_stage),
            vocab_size=padded_vocab_size(architecture, policy.tensor_parallel),
            max_sequence_length=architecture.context_length,
            pre_process=parallel_state.is_pipeline_first_stage(ignore_virtual=False, vp_stage=vp_stage),
            post_process=parallel_state.is_pipeline_last_stage(ignore_virtual=False, vp_stage=vp_stage),
            position_embedding_type="rope",
            share_embeddings_and_output_weights=architecture.tied,
            vp_stage=vp_stage,
        )
        self.before_head: Callable[[], None] = _nothing  # makes sure that head_weight() is whole
        save_gib = policy.logprob_save_gib
        self._vocab_size = architecture.vocab_size
        self._head_options: dict[str, Any] = {
            "entropy": "grad" if entropy_gradient else "metric",
            "implementation": policy.logprob_kernel.value,
            "mode": policy.logprob_mode.value,
            "save_budget_bytes": None if save_gib is None else int(save_gib * _BYTES_PER_GIB),
            "hidden_grad": "reduce_scatter" if config.sequence_parallel else "all_reduce",
        }

    def head_weight(self) -> torch.nn.Parameter:
        """[V / TP, H], padded, of the output layer; of the last chunk alone."""
        weight = (
            self.shared_embedding_or_output_weight()
            if self.share_embeddings_and_output_weights
            else self.output_layer.weight
        )
        assert isinstance(weight, torch.nn.Parameter)
        return weight

    def _postprocess(self, *, hidden_states: Tensor, labels: Tensor, **_: Any) -> Tensor | LogprobEntropy:
        """The seam of megatron-core 0.16 and 0.17 (`output_processor=` of `forward` is its heir in 0.18).

        hidden_states: [T, 1, H], under sequence parallelism this rank's part of T. labels: [1, T].
        """
        if not self.post_process:
            return hidden_states
        self.before_head()
        weight = self.head_weight()
        group = self.pg_collection.tp
        return linear_logprob_entropy(
            hidden_states.squeeze(1),
            weight,
            labels.squeeze(0),
            vocab_start=group.rank() * weight.size(0),
            vocab_valid=self._vocab_size,
            group=group,
            # Where megatron's data parallelism adds up gradients; a forward pass needs none.
            main_grad=getattr(weight, "main_grad", None),
            **self._head_options,
        )


def _nothing() -> None:
    pass


def build_model(
    architecture: Architecture, policy: Policy, folder: Path, *, entropy_gradient: bool
) -> PolicyModel:
    """This rank's part, on its device, with the weights not loaded; `folder` is the Hugging Face folder."""
    model = PolicyModel(architecture, policy, entropy_gradient=entropy_gradient).to(device())
    _mark_tensor_parallel(model)
    if policy_kernels(policy).weight_gradients:
        num_fused = fuse_weight_gradients(model)
        assert num_fused > 0, "Transformer Engine's linear layers have another name for the fusion"
    frequencies = inverse_frequencies(architecture, folder).to(device())
    for chunk in model.chunks:
        chunk.rotary_pos_emb.inv_freq = frequencies
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

    settings = AutoConfig.from_pretrained(folder, trust_remote_code=False)
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
