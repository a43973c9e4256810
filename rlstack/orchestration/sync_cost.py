"""What a sync costs, from the times of the steps around it. Pure; the times are not the same in two runs."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

Row = Mapping[str, Any]  # of metrics.jsonl


class SyncCost(NamedTuple):
    sync_s: float  # seconds per sync, until the trainer has the first rollouts of the new version
    step_s: float  # seconds per step without that

    def share(self, interval: int) -> float:
        """The part of the time that syncs take at s = `interval`."""
        return self.sync_s / (self.sync_s + interval * self.step_s)

    def interval_for(self, share: float) -> int:
        """The smallest s at which syncs take at most `share` (0 to 1, exclusive) of the time."""
        return max(1, math.ceil(self.sync_s * (1 - share) / (share * self.step_s)))


def sync_cost(rows: Sequence[Row]) -> SyncCost | None:
    """From consecutive steps with their times; None if they are of one version, or took no time.

    A sync costs its own time, and what the first step with rollouts of the new version waits for them beyond
    what the other steps wait. Where every step is such a first one, all of its wait is the sync's.
    """
    versions = [row["step"] - row["version_age"] for row in rows]
    fresh = [a != b for a, b in pairwise(versions)]
    if not any(fresh):
        return None
    rows = rows[1:]  # of the first one it is not known whether it waited for a new version
    waits = [row["time/generate_wait_s"] for row in rows]
    usual = [wait for wait, is_first in zip(waits, fresh, strict=True) if not is_first]
    usual_s = statistics.median(usual) if usual else 0.0
    idle_s = sum(max(wait - usual_s, 0.0) for wait, is_first in zip(waits, fresh, strict=True) if is_first)
    syncs_s = sum(row["time/sync_s"] for row in rows) + idle_s
    steps_s = sum(row["time/step_s"] - row["time/evaluate_s"] for row in rows) - syncs_s
    return SyncCost(syncs_s / sum(fresh), steps_s / len(rows)) if steps_s > 0 else None
