"""How a claim about recipes is held against the numbers of their runs."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import NamedTuple

from sweep_table import FirstLast, RunResult, over_versions, values_of

_, ACCURACY = over_versions("eval/accuracy")
SIGNIFICANT = 2.0  # standard errors of a difference: what is less is noise

Results = Mapping[str, Sequence[RunResult]]


class Verdict(StrEnum):
    found = "found"
    not_found = "not found"
    noise = "within noise"
    not_measured = "not measured"


class Expected(Enum):
    lower = "lower"
    same = "same"  # no difference beyond noise
    not_higher = "not higher"


class Finding(NamedTuple):
    claim: str
    verdict: Verdict
    numbers: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A claim about one recipe's measure against another's."""

    claim: str
    recipe: str
    than: str = "online"
    measure: str = ACCURACY
    expected: Expected

    def judge(self, results: Results) -> Finding:
        """The verdict on the runs of `results`, by recipe."""
        ours, theirs = (values_of(results.get(name, ()), self.measure) for name in (self.recipe, self.than))
        if not ours or not theirs:
            return Finding(self.claim, Verdict.not_measured, f"needs {self.recipe} and {self.than}")
        difference = statistics.fmean(ours) - statistics.fmean(theirs)
        numbers = f"{self.recipe} {statistics.fmean(ours):.3f}, {self.than} {statistics.fmean(theirs):.3f}"
        deviation = pooled_deviation(results, self.measure)
        if deviation is None:
            return Finding(self.claim, Verdict.not_measured, f"{numbers}; needs two seeds of a recipe")
        noise = SIGNIFICANT * deviation * (1 / len(ours) + 1 / len(theirs)) ** 0.5
        numbers += f": {difference:+.3f}, noise {noise:.3f}"
        return Finding(self.claim, compare(difference, noise, self.expected), numbers)


def compare(difference: float, noise: float, expected: Expected) -> Verdict:
    """Whether `difference` is what was expected of it; up to `noise` it may be chance."""
    if expected is Expected.same:
        return Verdict.found if abs(difference) <= noise else Verdict.not_found
    if expected is Expected.not_higher:
        return Verdict.found if difference <= noise else Verdict.not_found
    if abs(difference) <= noise:
        return Verdict.noise
    return Verdict.found if difference < 0 else Verdict.not_found


def pooled_deviation(results: Results, measure: str) -> float | None:
    """Standard deviation between the seeds of one recipe, pooled over recipes; None without two seeds of any.

    Recipes that were made to collapse are left out: theirs is not the noise of the others.
    """
    groups = [
        values
        for recipe, runs in results.items()
        if not recipe.startswith("length_collapse") and len(values := values_of(runs, measure)) > 1
    ]
    if not groups:
        return None
    freedom = sum(len(values) - 1 for values in groups)
    return (sum(statistics.variance(values) * (len(values) - 1) for values in groups) / freedom) ** 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A claim about how a measure changes within the runs of a recipe: all of them must do so."""

    claim: str
    recipe: str
    series: FirstLast
    at_least: float | None = None  # times the first value
    at_most: float | None = None
    rises: bool = False
    alarm: str | None = None  # that must be raised too

    def judge(self, results: Results) -> Finding:
        """The verdict on the runs of `results`, by recipe."""
        first, last = self.series
        runs = [run for run in results.get(self.recipe, ()) if {first, last} <= run.values.keys()]
        if not runs:
            return Finding(self.claim, Verdict.not_measured, f"needs {self.recipe}")
        holds = [self._holds(run) for run in runs]
        changes = ", ".join(f"{run.values[first]:.3f} -> {run.values[last]:.3f}" for run in runs)
        numbers = f"{self.recipe}: {changes}"
        if self.alarm is not None:
            raised = sum(self.alarm in run.alarms for run in runs)
            numbers += f"; alarm {self.alarm} in {raised} of {len(runs)} runs"
        return Finding(self.claim, Verdict.found if all(holds) else Verdict.not_found, numbers)

    def _holds(self, run: RunResult) -> bool:
        first, last = (run.values[measure] for measure in self.series)
        return (
            (self.at_least is None or last >= self.at_least * first)
            and (self.at_most is None or last <= self.at_most * first)
            and (not self.rises or last > first)
            and (self.alarm is None or self.alarm in run.alarms)
        )


Claim = Comparison | Change
