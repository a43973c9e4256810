"""The words that settings of the schedule accept beside numbers, and what follows from its settings."""

from __future__ import annotations

from rlstack.config.schema import RunConfig

AUTO = "auto"  # of sync_interval, and of reward.workers
NEVER = "never"  # of reference_sync
WITH_GENERATOR = "with_generator"  # of reference_sync


def keeps_served(config: RunConfig) -> bool:
    """Return True if the engines' version may differ from the policy's when it is needed again."""
    is_asked_for = config.schedule.save_every is not None or config.recovery.max_restarts > 0
    return is_asked_for and config.schedule.sync_interval != 1
