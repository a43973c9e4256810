"""Alarms by name: whether a run teaches nothing, rewards fail, answers are cut off, lengths or entropy have
collapsed, or training has diverged.

The steps' metrics go in, what to do about them comes out; nothing is done here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import fmean
from typing import Any

from rlstack.config.alarms import (
    Alarm,
    AlarmAction,
    CutOffAnswers,
    Divergence,
    EntropyCollapse,
    LengthCollapse,
    RewardErrors,
)
from rlstack.config.alarms import Alarms as Settings
from rlstack.telemetry.no_signal import Drought, barren_reason, no_signal_reasons

LENGTH, ENTROPY, REWARD = "rollout/length_mean", "policy/entropy", "reward/mean"
LOSS, GRAD_NORM = "loss/total", "grad_norm"
MISSING, CUT_OFF = "reward/missing", "rollout/cut_off"
MISMATCH, DRIFT = "mismatch/logprob_abs_mean", "drift/logprob_abs_mean"

Metrics = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Raised:
    """An alarm that went off; a row of alarms.jsonl."""

    step: int
    alarm: str  # its name among the settings below `alarms`; skipped_steps and clocks: skips.py, clocks.py
    action: AlarmAction
    reason: str
    lr_factor: float  # to multiply the learning rate with: 1 unless the action is lower_lr


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the alarms of one step ask of the loop."""

    lr_factor: float  # to multiply the learning rate with; 1 leaves it as it is
    stop: str | None  # why the run is to end

    @classmethod
    def of(cls, raised: Sequence[Raised]) -> Verdict:
        """All of `raised` together: the factors' product, and the reasons of those whose action is stop."""
        stops = [f"{each.alarm}: {each.reason}" for each in raised if each.action is AlarmAction.stop]
        return cls(lr_factor=math.prod(each.lr_factor for each in raised), stop="; ".join(stops) or None)


class StoppedByAlarm(Exception):
    """An alarm whose action is `stop` has ended the run; the message says which and why."""


@dataclass(slots=True)
class Series:
    """One metric: the mean of its last `size` values, the first such mean and the highest one."""

    size: int
    last: list[float] = field(default_factory=list)
    first_mean: float | None = None
    highest_mean: float | None = None

    @property
    def mean(self) -> float | None:
        """None until there are `size` values."""
        return fmean(self.last) if len(self.last) == self.size else None

    def add(self, value: float | None) -> None:
        """Take the value of one step; a step without one, or with one that is not finite, does not count."""
        if value is None or not math.isfinite(value):
            return
        self.last = [*self.last, float(value)][-self.size :]
        if (mean := self.mean) is not None:
            self.first_mean = mean if self.first_mean is None else self.first_mean
            self.highest_mean = mean if self.highest_mean is None else max(mean, self.highest_mean)


class Alarms:
    """All alarms of a run. One that was raised is silent for its `window` of steps, however long it lasts.

    `state` is for checkpoints: after `restore` of it, other Alarms go on as these would.
    """

    def __init__(self, settings: Settings, *, needs_contrast: bool = True) -> None:
        """needs_contrast: whether the objective can learn only from prompts whose rewards differ."""
        self._settings = settings
        self._needs_contrast = needs_contrast
        self._drought = Drought()
        self._series = {
            MISSING: Series(settings.reward_errors.window),
            CUT_OFF: Series(settings.cut_off.window),
            LENGTH: Series(settings.length_collapse.window),
            ENTROPY: Series(settings.entropy_collapse.window),
            REWARD: Series(settings.divergence.window),
        }
        self._silent_until: dict[str, int] = {}  # the first step at which each may be raised again

    def update(self, step: int, metrics: Metrics) -> list[Raised]:
        """The alarms that `step` raises; steps come in order, each once."""
        for name, series in self._series.items():
            series.add(metrics.get(name))
        self._drought.add(metrics, needs_contrast=self._needs_contrast)
        lengths, entropies, rewards = (self._series[name] for name in (LENGTH, ENTROPY, REWARD))
        settings = self._settings
        found = (
            self._raise(step, "no_signal", no_signal_reasons(settings.no_signal, self._drought)),
            self._raise(
                step, "reward_errors", _missing_reasons(settings.reward_errors, self._series[MISSING])
            ),
            self._raise(step, "cut_off", _cut_off_reasons(settings.cut_off, self._series[CUT_OFF])),
            self._raise(step, "length_collapse", _length_reasons(settings.length_collapse, lengths)),
            self._raise(step, "entropy_collapse", _entropy_reasons(settings.entropy_collapse, entropies)),
            self._raise(step, "divergence", _divergence_reasons(settings.divergence, rewards, metrics)),
        )
        return [raised for raised in found if raised is not None]

    def at_end(self, step: int) -> list[Raised]:
        """The alarms of a run that ends as planned after `step`; one too short for its `window` has one."""
        if self._settings.no_signal.action is None or "no_signal" in self._silent_until:
            return []
        if (reason := barren_reason(self._drought)) is None:
            return []
        return [Raised(step=step, alarm="no_signal", action=AlarmAction.warn, reason=reason, lr_factor=1.0)]

    def _raise(self, step: int, name: str, reasons: Iterator[str]) -> Raised | None:
        settings: Alarm = getattr(self._settings, name)
        if settings.action is None or step < self._silent_until.get(name, 0):
            return None
        reason = "; ".join(reasons)
        if not reason:
            return None
        self._silent_until[name] = step + settings.window
        lr_factor = settings.lr_factor if settings.action is AlarmAction.lower_lr else 1.0
        return Raised(step=step, alarm=name, action=settings.action, reason=reason, lr_factor=lr_factor)

    def state(self) -> dict[str, Any]:
        """What later updates depend on, as JSON has it."""
        series = {name: asdict(series) for name, series in self._series.items()}
        drought = asdict(self._drought)
        return {"series": series, "drought": drought, "silent_until": dict(self._silent_until)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`; what it has not, or with a window of another size, starts afresh."""
        for name, values in state["series"].items():
            if values["size"] == self._series[name].size:
                self._series[name] = Series(**values)
        self._drought = Drought(**state.get("drought", {}))
        self._silent_until = dict(state["silent_until"])


def _missing_reasons(settings: RewardErrors, missing: Series) -> Iterator[str]:
    if missing.mean is not None and missing.mean > settings.max_share:
        yield (
            f"{_mean_text(MISSING, missing)}, the share of the rollouts without a reward: above "
            f"{settings.max_share:g}; read the warnings in the output and the outcomes in rollouts.jsonl, "
            "and correct the reward or raise its time limit (reward.*timeout_s)"
        )


def _cut_off_reasons(settings: CutOffAnswers, cut_off: Series) -> Iterator[str]:
    if cut_off.mean is not None and cut_off.mean > settings.max_share:
        yield (
            f"{_mean_text(CUT_OFF, cut_off)}, the share of the answers that end at the token limit: above "
            f"{settings.max_share:g}; raise rollout.max_new_tokens or set objective.cut_off=mask or penalty"
        )


def _length_reasons(settings: LengthCollapse, lengths: Series) -> Iterator[str]:
    yield from _below_the_first(LENGTH, "tokens", lengths, settings.fraction)


def _entropy_reasons(settings: EntropyCollapse, entropies: Series) -> Iterator[str]:
    yield from _below_the_first(ENTROPY, "nats", entropies, settings.fraction)
    mean = entropies.mean
    if mean is not None and settings.floor is not None and mean < settings.floor:
        yield f"{_mean_text(ENTROPY, entropies)}, in nats: below {settings.floor:g}"


def _divergence_reasons(settings: Divergence, rewards: Series, metrics: Metrics) -> Iterator[str]:
    for name in (LOSS, GRAD_NORM):
        if not math.isfinite(metrics.get(name, 0.0)):
            yield f"{name} is {metrics[name]}"
    limits = {
        GRAD_NORM: settings.max_grad_norm,
        MISMATCH: settings.max_mismatch,
        DRIFT: settings.max_drift,
    }
    for name, limit in limits.items():
        if limit is not None and math.inf > metrics.get(name, 0.0) > limit:
            yield f"{name} is {metrics[name]:.3g}, above {limit:g}"
    mean, highest, drop = rewards.mean, rewards.highest_mean, settings.reward_drop
    if mean is not None and highest is not None and drop is not None and highest - mean > drop:
        yield f"{_mean_text(REWARD, rewards)}, more than {drop:g} below the highest such mean, {highest:.3g}"


def _below_the_first(name: str, unit: str, series: Series, fraction: float) -> Iterator[str]:
    mean, first = series.mean, series.first_mean
    if mean is not None and first is not None and mean < fraction * first:
        yield f"{_mean_text(name, series)}, in {unit}: below {fraction:g} of the start's {first:.3g}"


def _mean_text(name: str, series: Series) -> str:
    return f"{name} is {series.mean:.3g} over {series.size} steps"
