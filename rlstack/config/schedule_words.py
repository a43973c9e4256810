"""The words that settings of the schedule accept beside numbers."""

from __future__ import annotations

AUTO = "auto"  # of sync_interval
NEVER = "never"  # of reference_sync
WITH_GENERATOR = "with_generator"  # of reference_sync
