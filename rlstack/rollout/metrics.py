"""What a step's rollouts look like, whatever they are worth. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from rlstack.data.records import RolloutGroup


def rollout_metrics(groups: Sequence[RolloutGroup], step: int) -> dict[str, float]:
    """Lengths in tokens (end token included), the share cut off, and the age of the version in steps."""
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    lengths = [len(rollout.token_ids) for rollout in rollouts]
    return {
        "version_age": step - rollouts[0].version,
        "rollout/length_mean": statistics.fmean(lengths),
        "rollout/length_max": max(lengths),
        "rollout/cut_off": statistics.fmean(not rollout.finished for rollout in rollouts),
        "tokens/generated": sum(lengths),
    }
