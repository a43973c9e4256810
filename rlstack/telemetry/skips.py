"""When a run ends because the optimiser skips one step after the other. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

from rlstack.config.alarms import AlarmAction
from rlstack.telemetry.alarms import Metrics, Raised

SKIPPED = "guard/skipped"
REMEDY = "lower optimizer.lr or optimizer.clip_grad, or look at grad_norm and mismatch of the steps before"


def skipped_too_often(steps: Sequence[Metrics], *, limit: int) -> list[Raised]:
    """The alarm that stops a run whose last `limit` trained steps were all skipped; [] before that.

    A step without an example to train on is none of them, and does not interrupt them either.

    Args:
        steps: rows of metrics.jsonl, in order.
    """
    trained = (row[SKIPPED] for row in reversed(steps) if SKIPPED in row)
    skipped = sum(1 for _ in takewhile(bool, trained))
    if skipped < limit:
        return []
    reason = (
        f"{skipped} steps in a row were skipped (optimizer.max_skipped_steps = {limit}), "
        f"for the loss or a gradient was not finite; {REMEDY}"
    )
    return [
        Raised(
            step=steps[-1]["step"],
            alarm="skipped_steps",
            action=AlarmAction.stop,
            reason=reason,
            lr_factor=1.0,
        )
    ]
