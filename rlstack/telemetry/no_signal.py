"""Steps in a row that teach nothing, and why they do. Pure.

A step teaches nothing where the rewards of no prompt differ, so that there is no pair and every advantage is
0, or where no gradient comes of it. A few such steps are luck: rewards that are rare at first, or a batch of
one prompt. So they have to fill a window and to hold some prompts too. The latter is waived for a run whose
every reward has been the same, or missing, from its first step on: nothing speaks for it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rlstack.config.alarms import NoSignal

FORMED, SKIPPED, GRAD_NORM = "pairs/formed", "pairs/skipped", "grad_norm"
REWARD, MISSING, CUT_OFF = "reward/mean", "reward/missing", "rollout/cut_off"
_NEARLY_ALL = 0.9  # a share
_LET_GO_ON = "alarms.no_signal.action=warn lets such a run go on, alarms.no_signal.window gives it more steps"


@dataclass(slots=True)
class Drought:
    """The steps without a signal up to the last one; sums and extremes are over them."""

    steps: int = 0
    prompts: float = 0.0
    with_contrast: float = 0.0  # prompts whose rewards differ, without a gradient all the same
    missing: float = 0.0  # sum of the shares of the rollouts that have no reward
    cut_off: float = 0.0  # likewise, of those cut off
    lowest_reward: float | None = None  # of the steps' means; None: no step has a reward
    highest_reward: float | None = None
    has_broken: bool = False  # a step before them had a signal

    def add(self, metrics: Mapping[str, Any], *, needs_contrast: bool) -> None:
        """Take the next step, a row of metrics.jsonl; one that tells nothing of it does not count.

        needs_contrast: whether the objective can learn only from prompts whose rewards differ.
        """
        grad_norm, formed = metrics.get(GRAD_NORM), metrics.get(FORMED, 0.0)
        if grad_norm is None and (formed > 0 or FORMED not in metrics):
            return
        has_contrast = formed > 0 or FORMED not in metrics or not needs_contrast
        if has_contrast and grad_norm:  # one that is not finite is not 0
            self._begin_anew()
            return
        self.steps += 1
        self.prompts += formed + metrics.get(SKIPPED, 0.0)
        self.with_contrast += formed
        self.missing += metrics.get(MISSING, 0.0)
        self.cut_off += metrics.get(CUT_OFF, 0.0)
        if (reward := metrics.get(REWARD)) is not None:
            self.lowest_reward = reward if self.lowest_reward is None else min(reward, self.lowest_reward)
            self.highest_reward = reward if self.highest_reward is None else max(reward, self.highest_reward)

    def _begin_anew(self) -> None:
        for name, value in asdict(Drought(has_broken=True)).items():
            setattr(self, name, value)

    @property
    def is_constant(self) -> bool:
        """Whether the steps' mean rewards are all the same, but for rounding, or none is there."""
        low, high = self.lowest_reward, self.highest_reward
        return low is None or high is None or math.isclose(low, high, rel_tol=1e-9, abs_tol=1e-12)


def no_signal_reasons(settings: NoSignal, drought: Drought) -> Iterator[str]:
    """What to tell of a drought that is to be raised: one text; none before that."""
    if drought.steps < settings.window:
        return
    if drought.prompts < settings.min_prompts and (drought.has_broken or not drought.is_constant):
        return
    yield f"nothing was learnt in {drought.steps} steps: {_cause(drought)}; {_LET_GO_ON}"


def barren_reason(drought: Drought) -> str | None:
    """The warning for the end of a run in which no step taught anything, else None."""
    if drought.has_broken or not drought.steps:
        return None
    return f"no step of the run taught anything: {_cause(drought)}"


def _cause(drought: Drought) -> str:
    """What the rewards were, and the remedy."""
    if drought.with_contrast:
        return (
            f"rewards differ for {drought.with_contrast:g} of {drought.prompts:g} prompts, but there was no "
            "gradient (grad_norm); look at objective.cut_off, and at objective.loss if it is your own"
        )
    if drought.missing >= _NEARLY_ALL * drought.steps:
        return (
            "hardly a rollout has a reward; read the warnings in the output and the outcomes in "
            "rollouts.jsonl, and correct the reward"
        )
    if drought.cut_off >= _NEARLY_ALL * drought.steps:
        share = drought.cut_off / drought.steps
        return (
            f"{_rewards(drought)}, and {share:.0%} of the answers end at the token limit; raise "
            "rollout.max_new_tokens"
        )
    if drought.is_constant:
        return (
            f"{_rewards(drought)}; read answers in rollouts.jsonl, try the reward on some with rlstack "
            "score, and give other problems if these are all too hard or all solved"
        )
    return (
        f"{_rewards(drought)}; raise rollout.n or rollout.temperature, and see in rollouts.jsonl whether the "
        "reward depends on the answer"
    )


def _rewards(drought: Drought) -> str:
    if drought.is_constant and drought.lowest_reward is not None:
        return f"every reward was {drought.lowest_reward:.3g}"
    return "all answers to a prompt got the same reward"
