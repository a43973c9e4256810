"""Which trials to run: successive halving over the intervals, seed by seed. Pure.

Successive halving (Karnin et al. 2013; Jamieson and Talwalkar 2016, arXiv 1502.07943) gives every candidate a
little, keeps the better half, gives it more, and so on. What is given here is seeds: 1, 2, 4 and so on. It is
not steps, for an interval is judged by what its staleness leads to, which a few steps do not show. Online is
kept throughout, since every comparison is with it.

What to run next follows from what has been run and nothing else, so a tuning that was interrupted goes on.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rlstack.tuning.interval.intervals import ONLINE, Interval, in_order
from rlstack.tuning.interval.measures import Measures, measure
from rlstack.tuning.interval.recommend import Verdict, verdict_of
from rlstack.tuning.interval.trials import Trial, TrialResult


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    intervals: tuple[Interval, ...]  # online among them
    seeds: tuple[int, ...]
    num_steps: int
    lag: int
    margin: float  # of reward per step, that an interval may lose to online
    confidence: float  # of two-sided intervals
    accelerators: int  # that one run holds

    @property
    def rungs(self) -> list[int]:
        """How many of the seeds each rung has: 1, 2, 4 and so on, and at last all."""
        counts = [1]
        while counts[-1] < len(self.seeds):
            counts.append(min(2 * counts[-1], len(self.seeds)))
        return counts

    def most_trials(self) -> list[Trial]:
        """As many as there are if none fails. Which intervals are kept is not known before: those with the
        most syncs are counted, which take the longest."""
        kept, trials = self.intervals, []
        for before, seeds in zip([0, *self.rungs], self.rungs, strict=False):
            trials += trials_of(kept, self.seeds[before:seeds])
            kept = kept[: 1 + num_kept(len(kept) - 1)]
        return trials


class Rung(NamedTuple):
    """One round: the trials of `intervals` with `seeds`, and which go on from there."""

    intervals: tuple[Interval, ...]
    seeds: tuple[int, ...]
    todo: tuple[Trial, ...]  # neither finished nor given up
    kept: tuple[Interval, ...]  # for the next rung; empty while there is something to do, and in the last


def rungs(
    plan: Plan, results: Mapping[Trial, TrialResult], given_up: Collection[Trial] = frozenset()
) -> list[Rung]:
    """The rounds so far; the last one has what is to be done next, unless all has been done."""
    rounds: list[Rung] = []
    intervals = plan.intervals
    for num_seeds in plan.rungs:
        seeds = plan.seeds[:num_seeds]
        trials = trials_of(intervals, seeds)
        todo = tuple(trial for trial in trials if trial not in results and trial not in given_up)
        is_last = num_seeds == len(plan.seeds)
        finished = [results[trial] for trial in trials if trial in results]
        kept = () if todo or is_last else keep(plan, intervals, finished)
        rounds.append(Rung(intervals, seeds, todo, kept))
        if todo:
            break
        intervals = kept
    return rounds


def trials_of(intervals: Sequence[Interval], seeds: Sequence[int]) -> list[Trial]:
    """Seed by seed, so that what changes on the machine meanwhile hits all intervals alike."""
    return [Trial(interval, seed) for seed in seeds for interval in intervals]


def keep(plan: Plan, intervals: Sequence[Interval], results: Sequence[TrialResult]) -> tuple[Interval, ...]:
    """Online and the better half of the others: first those not shown to be worse per step than online by
    more than the margin, by their reward per hour. One without any result is out."""
    measured = measure(
        results, margin=plan.margin, confidence=plan.confidence, accelerators=plan.accelerators
    )
    others = sorted((m for m in measured if m.interval != ONLINE), key=lambda m: _rank(m, plan.margin))
    best = others[: num_kept(len(intervals) - 1)]
    return in_order([ONLINE, *(m.interval for m in best)])


def num_kept(num_others: int) -> int:
    """Of the intervals other than online."""
    return math.ceil(num_others / 2)


def _rank(measures: Measures, margin: float) -> tuple[bool, float]:
    is_worse = verdict_of(measures.reward_difference, margin) is Verdict.worse
    return is_worse, -measures.per_hour.mean
