"""Causal attention through torch, in place of Transformer Engine's.

megatron-core's own DotProductAttention refuses packed sequences and keeps the scores.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from rlstack.policy.backend import (
    MegatronModule,
    PackedSeqParams,
    TransformerConfig,
    gather_from_sequence_parallel_region,
)
from rlstack.policy.zigzag import rank_places


class PackedAttention(MegatronModule):
    """megatron-core's core_attention for packed sequences; d is the head dimension.

    Of R context-parallel ranks each has the queries of its tokens, [T' / R], and gets all keys and values.
    """

    def __init__(
        self,
        config: TransformerConfig,
        softmax_scale: float | None = None,
        *,
        pg_collection: Any,
        **_: Any,
    ) -> None:
        super().__init__(config=config)
        self.scale = softmax_scale or config.kv_channels**-0.5
        self.grouped = config.num_query_groups != config.num_attention_heads
        self.context = pg_collection.cp

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
        """query [T' / R, heads, d], key and value [T' / R, key-value heads, d] -> [T' / R, heads * d].

        Every sequence attends to itself alone; there is no mask to give.
        """
        starts = packed_seq_params.cu_seqlens_q.tolist()
        lengths = [end - start for start, end in pairwise(starts)]
        num_ranks = self.context.size()
        if num_ranks == 1:
            sequences = zip(*(tensor.split(lengths) for tensor in (query, key, value)), strict=True)
            return torch.cat([self._attend(*sequence) for sequence in sequences])
        places = torch.from_numpy(rank_places(starts, num_ranks=num_ranks))
        both = gather_from_sequence_parallel_region(torch.stack((key, value), dim=1), group=self.context)
        key, value = both[places.flatten().argsort()].unbind(1)
        queries = query.split([length // num_ranks for length in lengths])
        held = places[self.context.rank()].split([length // num_ranks for length in lengths])
        return torch.cat(
            [
                self._attend(q, k, v, mask=at[:, None] >= torch.arange(start, start + len(k)))
                for q, k, v, at, start in zip(
                    queries, key.split(lengths), value.split(lengths), held, starts, strict=False
                )
            ]
        )

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """mask: [queries, keys], true where a query sees a key; None: those up to its own place."""
        attended = functional.scaled_dot_product_attention(
            query.transpose(0, 1)[None],
            key.transpose(0, 1)[None],
            value.transpose(0, 1)[None],
            attn_mask=mask,
            is_causal=mask is None,
            scale=self.scale,
            enable_gqa=self.grouped,
        )
        return attended[0].transpose(0, 1).flatten(1)
