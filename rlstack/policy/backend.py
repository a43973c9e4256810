"""The one place that imports megatron-core; the rest of the policy takes its names from here.

Without CUDA it is adapted to the CPU first, which works only before it is imported.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from rlstack.policy.cpu import adaptor

if not torch.cuda.is_available():
    adaptor.install()


@contextmanager
def _without_wandb() -> Iterator[None]:
    """Keep megatron-core, which wants it for its own inference server only, from loading wandb: a second."""
    loaded = sys.modules.get("wandb")
    sys.modules["wandb"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if loaded is None:
            del sys.modules["wandb"]
        else:
            sys.modules["wandb"] = loaded


with _without_wandb(), warnings.catch_warnings():
    # About Transformer Engine and Apex, which a CPU cannot have.
    warnings.simplefilter("ignore")
    from megatron.core import dist_checkpointing, parallel_state
    from megatron.core.dist_checkpointing.mapping import ShardedTensor, ShardedTensorFactory
    from megatron.core.dist_checkpointing.strategies.async_utils import AsyncRequest
    from megatron.core.dist_checkpointing.strategies.common import TorchCommonLoadStrategy
    from megatron.core.dist_checkpointing.strategies.state_dict_saver import (
        save_state_dict_async_finalize,
        save_state_dict_async_plan,
    )
    from megatron.core.dist_checkpointing.strategies.torch import (
        MCoreLoadPlanner,
        MCoreSavePlanner,
        TorchDistLoadShardedStrategy,
        TorchDistSaveShardedStrategy,
        mcore_to_pyt_state_dict,
    )
    from megatron.core.dist_checkpointing.strategies.torch import (
        _replace_sharded_keys_with_state_dict_keys as tensors_by_name,
    )
    from megatron.core.dist_checkpointing.strategies.torch import (
        _replace_state_dict_keys_with_sharded_keys as shards_by_key,
    )
    from megatron.core.dist_checkpointing.strategies.torch import _restore_dict_types as restore_dict_types
    from megatron.core.dist_checkpointing.strategies.torch import _unwrap_pyt_sharded_tensor as unwrap_tensors
    from megatron.core.distributed import (
        DistributedDataParallel,
        DistributedDataParallelConfig,
        finalize_model_grads,
    )
    from megatron.core.fp8_utils import is_first_last_bf16_layer
    from megatron.core.models.gpt.gpt_layer_specs import (
        get_gpt_layer_local_spec,
        get_gpt_layer_with_transformer_engine_spec,
    )
    from megatron.core.models.gpt.gpt_model import GPTModel
    from megatron.core.optimizer import MegatronOptimizer, OptimizerConfig, get_megatron_optimizer
    from megatron.core.optimizer.clip_grads import clip_grad_by_total_norm_fp32
    from megatron.core.optimizer_param_scheduler import OptimizerParamScheduler
    from megatron.core.packed_seq_params import PackedSeqParams
    from megatron.core.pipeline_parallel import get_forward_backward_func
    from megatron.core.tensor_parallel import (
        ColumnParallelLinear,
        RowParallelLinear,
        VocabParallelEmbedding,
        gather_from_sequence_parallel_region,
        get_cuda_rng_tracker,
        model_parallel_cuda_manual_seed,
        set_tensor_model_parallel_attributes,
    )
    from megatron.core.transformer.module import MegatronModule
    from megatron.core.transformer.spec_utils import ModuleSpec
    from megatron.core.transformer.transformer_block import (
        TransformerBlockSubmodules,
        get_num_layers_to_build,
    )
    from megatron.core.transformer.transformer_config import TransformerConfig

__all__ = [
    "AsyncRequest",
    "ColumnParallelLinear",
    "DistributedDataParallel",
    "DistributedDataParallelConfig",
    "GPTModel",
    "MCoreLoadPlanner",
    "MCoreSavePlanner",
    "MegatronModule",
    "MegatronOptimizer",
    "ModuleSpec",
    "OptimizerConfig",
    "OptimizerParamScheduler",
    "PackedSeqParams",
    "RowParallelLinear",
    "ShardedTensor",
    "ShardedTensorFactory",
    "TorchCommonLoadStrategy",
    "TorchDistLoadShardedStrategy",
    "TorchDistSaveShardedStrategy",
    "TransformerBlockSubmodules",
    "TransformerConfig",
    "VocabParallelEmbedding",
    "clip_grad_by_total_norm_fp32",
    "device",
    "dist_checkpointing",
    "finalize_model_grads",
    "gather_from_sequence_parallel_region",
    "get_cuda_rng_tracker",
    "get_forward_backward_func",
    "get_gpt_layer_local_spec",
    "get_gpt_layer_with_transformer_engine_spec",
    "get_megatron_optimizer",
    "get_num_layers_to_build",
    "is_first_last_bf16_layer",
    "mcore_to_pyt_state_dict",
    "model_parallel_cuda_manual_seed",
    "on_gpu",
    "parallel_state",
    "restore_dict_types",
    "save_state_dict_async_finalize",
    "save_state_dict_async_plan",
    "set_tensor_model_parallel_attributes",
    "shards_by_key",
    "tensors_by_name",
    "unwrap_tensors",
]


def on_gpu() -> bool:
    """Whether the policy runs on CUDA; decided by the machine, never by a setting."""
    return torch.cuda.is_available()


def device() -> torch.device:
    """Where this rank's tensors live: the current CUDA device, or the CPU."""
    return torch.device("cuda", torch.cuda.current_device()) if on_gpu() else torch.device("cpu")
