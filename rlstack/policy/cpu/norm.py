"""RMSNorm in place of Transformer Engine's."""

from __future__ import annotations

from typing import Any

import torch

from rlstack.policy.backend import TransformerConfig


class RMSNorm(torch.nn.RMSNorm):
    """[..., H] -> [..., H], in the parameters' precision.

    megatron-core's own WrappedTorchNorm refuses sequence parallelism and is always fp32.
    """

    def __init__(self, config: TransformerConfig, hidden_size: int, eps: float = 1e-5, **_: Any) -> None:
        super().__init__(hidden_size, eps=eps, dtype=config.params_dtype)
        # Read by finalize_model_grads: each rank has seen its part of the sequence only.
        self.weight.sequence_parallel = config.sequence_parallel  # type: ignore[attr-defined]
