"""From measures to a recommendation, in words. Pure.

Recommended is the interval with the best reward per hour among those whose reward per step is not worse than
online's by more than a margin: a test of non-inferiority, passed when the lower end of the interval of the
difference is above minus the margin (Schuirmann 1987, doi 10.1007/BF01068419). Intervals whose rewards per
hour differ by no more than noise count as equal, and the one of the shortest step is taken; where steps take
the same time too, the smallest, which is closest to online. The tests are one by one: nothing corrects for
their number, nor for the luck of those that successive halving has kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from rlstack.tuning.interval.confidence import Estimate, Over, paired
from rlstack.tuning.interval.intervals import ONLINE, Interval, label
from rlstack.tuning.interval.measures import Measures

SAME_STEP_S = 0.02  # steps whose times differ by a smaller share take the same time


class Verdict(StrEnum):
    """On an interval's reward per step."""

    not_worse = "not worse"  # than online's by more than the margin
    worse = "worse"
    undecided = "undecided"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    interval: Interval
    verdicts: tuple[tuple[Interval, Verdict], ...]
    reasons: tuple[str, ...]


def verdict_of(difference: Estimate | None, margin: float) -> Verdict:
    """On the difference to online; undecided without one, or with one value only."""
    if difference is None or difference.low is None or difference.high is None:
        return Verdict.undecided
    if difference.low > -margin:
        return Verdict.not_worse
    return Verdict.worse if difference.high < -margin else Verdict.undecided


def recommend(measured: Sequence[Measures], *, margin: float, confidence: float) -> Recommendation | None:
    """The recommendation; None without a measure of online, which everything is compared with."""
    by_interval = {m.interval: m for m in measured}
    if ONLINE not in by_interval:
        return None
    verdicts = {m.interval: _verdict(m, measured, margin) for m in measured}
    candidates = [m for m in measured if verdicts[m.interval] is Verdict.not_worse]
    best = max(candidates, key=lambda m: m.per_hour.mean)
    equal = [m for m in candidates if not _is_slower(m, best, confidence)]
    chosen = _cheapest(equal)
    return Recommendation(
        interval=chosen.interval,
        verdicts=tuple(verdicts.items()),
        reasons=tuple(_reasons(chosen, equal, by_interval, verdicts, margin)),
    )


def _verdict(measures: Measures, measured: Sequence[Measures], margin: float) -> Verdict:
    """Where others have had several seeds, one seed's trial is not enough to be recommended on."""
    if measures.interval == ONLINE:
        return Verdict.not_worse
    verdict, difference = verdict_of(measures.reward_difference, margin), measures.reward_difference
    of_one_seed = difference is not None and difference.over is Over.steps
    if verdict is Verdict.not_worse and of_one_seed and any(m.num_seeds > 1 for m in measured):
        return Verdict.undecided
    return verdict


def _is_slower(measures: Measures, best: Measures, confidence: float) -> bool:
    """Whether its reward per hour is lower than `best`'s by more than noise."""
    difference = paired(measures.rates, best.rates, confidence=confidence)
    if difference is None or difference.high is None:  # one seed says nothing of the noise
        return measures.per_hour.mean < best.per_hour.mean
    return difference.high < 0


def _cheapest(measured: Sequence[Measures]) -> Measures:
    shortest_s = min(m.step_s.mean for m in measured)
    same = [m for m in measured if m.step_s.mean <= shortest_s * (1 + SAME_STEP_S)]
    return min(same, key=lambda m: float("inf") if m.interval is None else m.interval)


def _reasons(
    chosen: Measures,
    equal: Sequence[Measures],
    by_interval: dict[Interval, Measures],
    verdicts: dict[Interval, Verdict],
    margin: float,
) -> Iterator[str]:
    online = by_interval[ONLINE]
    yield (
        f"Reward gained per hour of steps: {chosen.per_hour.mean:.3g} with s = {label(chosen.interval)}, "
        f"{online.per_hour.mean:.3g} online; a step takes {chosen.step_s.mean:.3g} s, "
        f"{online.step_s.mean:.3g} s online"
    )
    if chosen.interval != ONLINE and chosen.reward_difference is not None:
        yield (
            f"Its reward per step is {chosen.reward.mean:.3f}; the difference to online is "
            f"{difference_text(chosen.reward_difference)}, not worse by more than {margin:g}"
        )
    if len(equal) > 1:
        names = _listed(m.interval for m in equal)
        yield f"{names} are within noise of each other in reward per hour; {_preferred(chosen, equal)}"
    undecided = [s for s, verdict in verdicts.items() if verdict is Verdict.undecided]
    early = [s for s in undecided if by_interval[s].num_seeds == 1 < online.num_seeds]
    for interval in undecided:
        if interval not in early:
            difference = difference_text(by_interval[interval].reward_difference)
            yield f"{label(interval)} is undecided: its difference to online is {difference}"
    if early:
        yield f"{_listed(early)} had one seed and cannot be decided on it"
    if worse := [s for s, v in verdicts.items() if v is Verdict.worse]:
        yield f"Worse per step than online by more than {margin:g}: {_listed(worse)}"


def _preferred(chosen: Measures, equal: Sequence[Measures]) -> str:
    same = [m for m in equal if m.step_s.mean <= chosen.step_s.mean * (1 + SAME_STEP_S)]
    if len(same) == 1:
        return f"{label(chosen.interval)} takes the least time per step"
    return f"of the shortest steps {label(chosen.interval)} is the closest to online"


def difference_text(difference: Estimate | None) -> str:
    """A difference with the ends of its interval."""
    if difference is None:
        return "not known"
    if difference.low is None or difference.high is None:
        return f"{difference.mean:+.3f} of one seed"
    return f"{difference.mean:+.3f} ({difference.low:+.3f} to {difference.high:+.3f})"


def _listed(intervals: Iterator[Interval] | Sequence[Interval]) -> str:
    return ", ".join(map(label, intervals))
