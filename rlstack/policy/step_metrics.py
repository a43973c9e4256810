"""The metrics of a step, from those of its micro-batches on all data-parallel ranks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import Tensor

from rlstack.losses.types import Ratio
from rlstack.policy.backend import device
from rlstack.policy.mismatch import Difference


@dataclass(slots=True)
class MicroBatchMetrics:
    """Scalars by metric name; every micro-batch of a step has the same names, fillers too."""

    loss: Tensor  # scalar, detached: what the gradient is of, before any divisor
    ratios: dict[str, Ratio] = field(default_factory=dict)
    sums: dict[str, float] = field(default_factory=dict)
    maxima: dict[str, Tensor] = field(default_factory=dict)

    def add_difference(self, name: str, value: Difference) -> None:
        """As `name`_mean and `name`_max."""
        self.ratios[f"{name}_mean"] = value.mean
        self.maxima[f"{name}_max"] = value.maximum


def reduce_metrics(micro_batches: Sequence[MicroBatchMetrics], group: dist.ProcessGroup) -> dict[str, float]:
    """The metrics over `micro_batches` and the ranks of `group`, the same on all of them.

    Ratios and sums are added, maxima compared. A ratio of nothing is left out, as is a maximum of nothing,
    which is -inf.
    """
    first = micro_batches[0]
    ratio_names, sum_names, max_names = (sorted(names) for names in (first.ratios, first.sums, first.maxima))
    added = torch.tensor(
        [
            [
                *(float(value) for name in ratio_names for value in metrics.ratios[name]),
                *(metrics.sums[name] for name in sum_names),
            ]
            for metrics in micro_batches
        ],
        dtype=torch.float64,
        device=device(),
    ).sum(0)
    largest = torch.tensor(
        [[float(metrics.maxima[name]) for name in max_names] for metrics in micro_batches],
        dtype=torch.float64,
        device=device(),
    ).amax(0)
    dist.all_reduce(added, group=group)
    dist.all_reduce(largest, op=dist.ReduceOp.MAX, group=group)
    values = added.tolist()
    reduced = {
        name: values[2 * i] / values[2 * i + 1] for i, name in enumerate(ratio_names) if values[2 * i + 1]
    }
    reduced.update(zip(sum_names, values[2 * len(ratio_names) :], strict=True))
    highest = zip(max_names, largest.tolist(), strict=True)
    reduced.update({name: value for name, value in highest if value != -math.inf})
    return reduced
