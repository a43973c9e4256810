"""The next sync interval s, from what the steps before a sync have shown: a pure decision.

The drift that the trainer works against is largest in an interval's last step. s is the largest number of
steps at whose end it is within the budget, `max_drift`. That holds the bias of the gradient, which grows as
staleness times learning rate (Song et al. 2026, arXiv:2607.01083), while s follows the learning rate, the
batch and the phase of training. That DPO bears rollouts some steps old is what Noukhovitch et al. 2025
(arXiv:2410.18252) and the semi-online regime itself (arXiv:2506.21495) show.

The rule is that of PPO's KL penalty (Schulman et al. 2017, arXiv:1707.06347, section 4: leave it within a
factor of the target, else double or halve it), with a measured law for what a change will do. s stays while
the drift that it leads to is within the budget and not far below; otherwise it aims at TOLERANCE below the
budget, at most MAX_CHANGE-fold from where it is.

The defaults: 0.02 nats per token is a tenth of PPO's usual clipping range, and about what s = 10 ends at in
the tiny task; s = 10 lost nothing in any task of the paper, and 100 is the longest finite s that it tried.

By default the drift alone decides, which is the same in every run of the same settings. `max_sync_share` lets
seconds count too: the smallest s at which syncs take no more than that share of the time is enough, for
fresher rollouts are better ones; the budget comes first. Such a run is repeated by its log, with `replay`.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

from rlstack.config.schema import Adaptive
from rlstack.orchestration.drift import DriftLaw, Point, above_floor, fit
from rlstack.orchestration.sync_cost import Row, SyncCost, sync_cost

TOLERANCE = 1.25  # s is left as it is while it is off by less than this factor
MAX_CHANGE = 2
MIN_WINDOW = 16  # steps that are looked back at, or s if that is more

DRIFT, FLOOR = "drift/logprob_abs_mean", "mismatch/logprob_abs_mean"


class Seen(NamedTuple):
    """What the last steps have shown."""

    law: DriftLaw | None  # None: no step was trained on rollouts of an earlier version
    floor: float | None  # nats per token: generator against trainer, same version; no sync can remove it
    cost: SyncCost | None


class Choice(NamedTuple):
    interval: int  # steps
    reason: str


def look(rows: Sequence[Row], *, interval: int) -> Seen:
    """Read the last rows of metrics.jsonl; those without a finite drift, or without times, do not count."""
    window = max(interval, MIN_WINDOW)
    timed = [row for row in rows[-2 * window :] if "time/step_s" in row]  # so many hold a sync at least
    rows = rows[-window:]
    floors = [row[FLOOR] for row in rows if _is_finite(row.get(FLOOR))]
    floor = statistics.fmean(floors) if floors else None
    points = [
        Point(row["version_age"], above_floor(row[DRIFT], floor or 0.0))
        for row in rows
        if row["version_age"] > 0 and _is_finite(row.get(DRIFT))
    ]
    return Seen(fit(points), floor, sync_cost(timed))


def choose(settings: Adaptive, interval: int, seen: Seen, *, lag: int = 0) -> Choice:
    """s for the interval that begins, where the last one's was `interval`."""
    wanted, reason = _wanted(settings, interval, seen, lag)
    nearest = min(max(wanted, math.ceil(interval / MAX_CHANGE)), interval * MAX_CHANGE)
    chosen = int(min(max(nearest, settings.min), settings.max))
    if chosen != nearest:
        bound = "min" if chosen > nearest else "max"
        reason = f"{reason}; schedule.adaptive.{bound} = {chosen}"
    return Choice(chosen, reason)


def _wanted(settings: Adaptive, interval: int, seen: Seen, lag: int) -> tuple[float, str]:
    """s without its bounds, infinite if nothing speaks against any, and why."""
    oldest = interval - 1 + lag  # steps: the age of the rollouts of an interval's last step
    if seen.law is not None:
        most = _longest(seen.law, settings.max_drift, lag)
        aim = _longest(seen.law, settings.max_drift / TOLERANCE, lag)
        drift = f"drift of {seen.law.at(oldest):.2g} nats per token at age {oldest}"
    elif oldest > 0:
        return interval, "no drift was measured"
    else:
        most = aim = 2
        drift = "nothing is old enough to have drifted"
    enough = _enough(settings, seen.cost)
    if interval > most:
        return aim, f"{drift}, above {settings.max_drift:g}"
    if interval > TOLERANCE * enough:
        return enough, f"{drift}; syncs take no more than {settings.max_sync_share:.1%} from s = {enough} on"
    if min(aim, enough) > TOLERANCE * interval:
        return min(aim, enough), f"{drift}, room up to {settings.max_drift:g}"
    return interval, f"{drift}, within {settings.max_drift:g}"


def _longest(law: DriftLaw, drift: float, lag: int) -> float:
    """The largest s whose rollouts end at no more than `drift`; 1 if there is none."""
    age = law.age_of(drift)
    return max(1.0, math.floor(age) + 1 - lag) if math.isfinite(age) else math.inf


def _enough(settings: Adaptive, cost: SyncCost | None) -> float:
    """The smallest s at which syncs take a share of the time that is settled for; infinite if none is."""
    if settings.max_sync_share is None or cost is None:
        return math.inf
    return cost.interval_for(settings.max_sync_share)


def _is_finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
