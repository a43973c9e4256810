"""Causal attention through torch, in place of Transformer Engine's.

megatron-core's own DotProductAttention refuses packed sequences and keeps the scores.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from rlstack.policy.backend import MegatronModule, PackedSeqParams, TransformerConfig


class PackedAttention(MegatronModule):
    """megatron-core's core_attention for packed sequences; d is the head dimension."""

    def __init__(self, config: TransformerConfig, softmax_scale: float | None = None, **_: Any) -> None:
        super().__init__(config=config)
        self.scale = softmax_scale or config.kv_channels**-0.5
        self.grouped = config.num_query_groups != config.num_attention_heads

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: None,
        *,
        packed_seq_params: PackedSeqParams,
        **_: Any,
    ) -> Tensor:
        """query [T, heads, d], key and value [T, key-value heads, d] -> [T, heads * d].

        Every sequence attends to itself alone; there is no mask to give.
        """
        lengths = packed_seq_params.cu_seqlens_q.diff().tolist()
        sequences = zip(*(tensor.split(lengths) for tensor in (query, key, value)), strict=True)
        return torch.cat([self._attend(*sequence) for sequence in sequences])

    def _attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        attended = functional.scaled_dot_product_attention(
            query.transpose(0, 1)[None],
            key.transpose(0, 1)[None],
            value.transpose(0, 1)[None],
            is_causal=True,
            scale=self.scale,
            enable_gqa=self.grouped,
        )
        return attended[0].transpose(0, 1).flatten(1)
