"""From the metrics of all steps to summary.json. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from rlstack.telemetry.metrics import over_steps

WINDOW = 20  # steps at either end of a run that reward_first20 and reward_last20 are the mean of


def summarise(
    steps: Sequence[Mapping[str, Any]],
    *,
    status: str,
    evaluations: Mapping[int, Mapping[str, Any]],
    wall_s: float,
    phase_s: Mapping[str, float],
) -> dict[str, Any]:
    """What became of a run; `alarms`, `intervals`, `versions` and `hardware` are for the caller to add.

    Args:
        steps: rows of metrics.jsonl, in order.
        status: completed | stopped (by an alarm) | failed | interrupted.
        evaluations: eval/* metrics by version.
        wall_s: of the whole run, start-up included, in seconds.
        phase_s: seconds by phase, the evaluations before the first and after the last step included.

    Returns:
        reward_* are None without steps, accuracy_* without evaluations and accuracy_final also where the
        run ended early; best is the first version with the highest eval/selection, None without one;
        time_s.other is what no phase accounts for: start-up, saving and waiting to end.
    """
    rewards = [step["reward/mean"] for step in steps if "reward/mean" in step]
    last_version = steps[-1]["step"] if steps else 0
    return {
        "status": status,
        "steps": len(steps),
        "reward_first20": _mean(rewards[:WINDOW]),
        "reward_last20": _mean(rewards[-WINDOW:]),
        "accuracy_initial": _accuracy(evaluations, 0),
        "accuracy_final": _accuracy(evaluations, last_version) if status == "completed" else None,
        "best": _best(evaluations),
        "wall_s": wall_s,
        "time_s": {**phase_s, "other": wall_s - sum(phase_s.values())},
        "tokens": {
            "generated": int(over_steps("tokens/generated", steps) or 0),
            "trained": int(over_steps("tokens/trained", steps) or 0),
        },
        "syncs": sum("sync/bytes" in step for step in steps),
        "mismatch_logprob_abs_max": over_steps("mismatch/logprob_abs_max", steps),
        "evaluations": [evaluations[version] for version in sorted(evaluations)],
    }


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None


def _accuracy(evaluations: Mapping[int, Mapping[str, Any]], version: int) -> float | None:
    return evaluations[version].get("eval/accuracy") if version in evaluations else None


def _best(evaluations: Mapping[int, Mapping[str, Any]]) -> dict[str, Any] | None:
    values = {v: evaluations[v]["eval/selection"] for v in evaluations if "eval/selection" in evaluations[v]}
    if not values:
        return None
    version = min(values, key=lambda version: (-values[version], version))
    return {"version": version, "value": values[version]}
