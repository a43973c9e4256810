"""A micro-batch as the tensors that megatron-core takes. Letters as in data.records.

R context-parallel ranks hold T' / R tokens each; `zigzag` says which.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from rlstack_kernels import LogprobEntropy
from torch import Tensor

from rlstack.data.records import MicroBatch
from rlstack.losses.types import LossInputs
from rlstack.policy.backend import PackedSeqParams, device
from rlstack.policy.context import gather_over_context
from rlstack.policy.zigzag import padded_starts, rank_places


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedBatch:
    """[1, T' / R] tokens on this rank's device; T' is T with what the layout's divisors ask for.

    Padding follows each sequence, whose tokens do not see it, or is a sequence of its own; no loss sees it.
    """

    token_ids: Tensor  # [1, T' / R] int64
    labels: Tensor  # [1, T' / R] int64
    sequences: PackedSeqParams  # of all T'
    places: Tensor  # [T] int64, of the micro-batch's tokens among those of all ranks, rank by rank
    num_ranks: int
    source: MicroBatch

    @classmethod
    def from_micro_batch(
        cls, micro_batch: MicroBatch, *, rank: int = 0, num_ranks: int = 1, num_slices: int = 1
    ) -> PackedBatch:
        """The part of context-parallel rank `rank` of `num_ranks`; it divides into `num_slices`."""
        starts, padded_places = padded_starts(
            micro_batch.sequence_starts.tolist(), num_ranks=num_ranks, num_slices=num_slices
        )
        by_rank = rank_places(starts, num_ranks=num_ranks)
        where = np.empty(starts[-1], np.int64)  # each padded place among all ranks' tokens
        where[by_rank.reshape(-1)] = np.arange(starts[-1])

        def of_rank(array: np.ndarray) -> Tensor:
            padded = np.zeros(starts[-1], np.int64)
            padded[padded_places] = array
            return _tensor(padded[by_rank[rank]], torch.int64)[None]

        return cls(
            token_ids=of_rank(micro_batch.token_ids),
            labels=of_rank(micro_batch.labels),
            sequences=_sequences(starts, is_cut=num_ranks > 1),
            places=_tensor(where[padded_places], torch.int64),
            num_ranks=num_ranks,
            source=micro_batch,
        )

    @property
    def num_tokens(self) -> int:
        """T'."""
        return self.token_ids.numel() * self.num_ranks

    def whole(self, output: LogprobEntropy) -> LogprobEntropy:
        """[T] each, from the [T' / R] that the model gave on each context-parallel rank; a collective."""
        assert output.entropy is not None
        # One by one: the entropies may be a metric, which no gradient is to reach.
        both = (output.logprobs, output.entropy)
        return LogprobEntropy(*(gather_over_context(local)[self.places] for local in both))

    def loss_inputs(self, output: LogprobEntropy, reference_logprobs: Tensor | None) -> LossInputs:
        """`output` is of `whole`; `reference_logprobs` the reference's [T] or None."""
        assert output.entropy is not None
        batch = self.source
        return LossInputs(
            policy_logprobs=output.logprobs,
            entropy=output.entropy,
            reference_logprobs=reference_logprobs,
            generator_logprobs=_tensor(batch.generator_logprobs, torch.float32),
            loss_mask=_tensor(batch.loss_mask, torch.bool),
            sequence_starts=_tensor(batch.sequence_starts, torch.int64),
            pairs=_tensor(batch.pairs, torch.int64).reshape(-1, 2),
            pair_weights=_tensor(batch.pair_weights, torch.float32),
            advantages=_tensor(batch.advantages, torch.float32),
            rollout_weights=_tensor(batch.rollout_weights, torch.float32),
            num_zero_rollouts=batch.num_zero_examples,
        )


def _sequences(starts: Sequence[int], *, is_cut: bool) -> PackedSeqParams:
    offsets = torch.tensor(starts, dtype=torch.int32)
    longest = int(offsets.diff().max())
    offsets = offsets.to(device())
    # Transformer Engine asks for the padded lengths beside the real ones where it cuts sequences. Both are
    # the padded ones: what a sequence's tokens do not see need not be told apart.
    padded = offsets if is_cut else None
    return PackedSeqParams(
        qkv_format="thd",
        cu_seqlens_q=offsets,
        cu_seqlens_kv=offsets,
        cu_seqlens_q_padded=padded,
        cu_seqlens_kv_padded=padded,
        max_seqlen_q=longest,
        max_seqlen_kv=longest,
    )


def _tensor(array: object, dtype: torch.dtype) -> Tensor:
    # A copy, since arrays that come out of Ray's object store are read-only.
    return torch.tensor(array, dtype=dtype, device=device())
