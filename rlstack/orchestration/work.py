"""What a step's micro-batches ask of the policy's ranks. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import numpy as np

from rlstack.data.records import MicroBatch
from rlstack.model.flops import ModelFlops


def work_metrics(
    batches: Sequence[Sequence[MicroBatch]], flops: ModelFlops, *, has_reference_pass: bool
) -> dict[str, float]:
    """Model FLOPs of a step on [data-parallel rank][m] micro-batches, and how evenly they are spread.

    From the exact length of each sequence; fillers and other padding are no part of it.
    """
    forward = [sum(flops.forward_of(_lengths(batch)) for batch in rank) for rank in batches]
    total = sum(forward)
    metrics = {
        "flops/train": float(flops.training(total)),
        "packing/micro_batches": float(len(batches[0])),
    }
    if total:  # else every example's loss is 0
        metrics["packing/flops_imbalance"] = max(forward) / statistics.fmean(forward)
    return metrics | ({"flops/reference": float(total)} if has_reference_pass else {})


def _lengths(batch: MicroBatch) -> list[int]:
    """Tokens of its sequences; none of a filler's."""
    lengths: list[int] = np.diff(batch.sequence_starts).tolist()
    return lengths if batch.num_examples else []
