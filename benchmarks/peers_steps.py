"""Runs of two stacks in one form: what every step took and gave, and what follows from it."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Times are of the wall clock; what is not told apart is the rest of step_s."""

    step_s: float
    generate_s: float  # sampling; of rlstack the wait for it
    reward_s: float  # scoring; of rlstack the wait for it
    sync_s: float  # weights to the generator
    reward: float  # mean over the step's rollouts
    rollouts: int
    generated_tokens: int
    trained_tokens: int  # prompts included, padding not


def rlstack_steps(rows: Iterable[Mapping[str, Any]], *, rollouts_per_step: int) -> list[Step]:
    """From the rows of a metrics.jsonl."""
    return [
        Step(
            step_s=row["time/step_s"],
            generate_s=row["time/generate_wait_s"],
            reward_s=row["time/reward_s"],
            sync_s=row["time/sync_s"],
            reward=row["reward/mean"],
            rollouts=rollouts_per_step,
            generated_tokens=row["tokens/generated"],
            trained_tokens=row.get("tokens/trained", 0),
        )
        for row in rows
    ]


def trl_steps(ranks: Sequence[Sequence[Mapping[str, float]]], *, prompt_tokens: float) -> list[Step]:
    """From what peers_trl/run.py wrote, rank by rank; times are the first rank's.

    prompt_tokens: mean of a prompt. Every rollout is trained on with its prompt.
    """
    steps = []
    for of_ranks in zip(*ranks, strict=True):
        rollouts, tokens, rewards = (
            sum(r[key] for r in of_ranks) for key in ("rollouts", "tokens", "rewards")
        )
        steps.append(
            Step(
                step_s=of_ranks[0]["step_s"],
                generate_s=of_ranks[0]["generate_s"],
                reward_s=of_ranks[0]["reward_s"],
                sync_s=0.0,
                reward=rewards / rollouts,
                rollouts=int(rollouts),
                generated_tokens=int(tokens),
                trained_tokens=round(tokens + rollouts * prompt_tokens),
            )
        )
    return steps


def summary(runs: Sequence[Sequence[Step]], *, skipped: int, goal: float, window: int) -> dict[str, Any]:
    """Of repetitions of one case; the first `skipped` steps of each count for the time to the goal only.

    step_s_mean is the median over the runs of a run's mean: a sync or a long wait is in it, another program's
    disturbance of one run is not.
    """
    steady = [run[skipped:] for run in runs]
    steps = [step for run in steady for step in run]
    mean = {
        f.name: statistics.median(statistics.fmean(getattr(step, f.name) for step in run) for run in steady)
        for f in fields(Step)
    }
    told_apart = mean["generate_s"] + mean["reward_s"] + mean["sync_s"]
    return {
        "step_s_median": statistics.median(step.step_s for step in steps),
        "step_s_mean": mean["step_s"],
        "generate_s": mean["generate_s"],
        "reward_s": mean["reward_s"],
        "sync_s": mean["sync_s"],
        "rest_s": mean["step_s"] - told_apart,
        "rollouts": mean["rollouts"],
        "generated_tokens": mean["generated_tokens"],
        "generated_tokens_per_s": mean["generated_tokens"] / mean["step_s"],
        "trained_tokens_per_s": mean["trained_tokens"] / mean["step_s"],
        "reward_last": statistics.median(statistics.fmean(s.reward for s in run[-window:]) for run in runs),
        "time_to_reward_s": median_or_none([time_to_reward(run, goal=goal, window=window) for run in runs]),
    }


def time_to_reward(steps: Sequence[Step], *, goal: float, window: int) -> float | None:
    """Seconds of steps until the mean reward of the last `window` is `goal`; None if it never is."""
    elapsed_s = 0.0
    for count, step in enumerate(steps, start=1):
        elapsed_s += step.step_s
        recent = steps[max(count - window, 0) : count]
        if count >= window and statistics.fmean(s.reward for s in recent) >= goal:
            return elapsed_s
    return None


def median_or_none(values: Sequence[float | None]) -> float | None:
    """None if any of them is."""
    known = [value for value in values if value is not None]
    return statistics.median(known) if len(known) == len(values) else None


def with_ratios(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each row with its step time over that of the fastest TRL row with its objective; None without one."""
    return [
        {**row, **{f"ratio_{kind}": _ratio(row, rows, f"step_s_{kind}") for kind in ("mean", "median")}}
        for row in rows
    ]


def _ratio(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], key: str) -> float | None:
    peers = [r[key] for r in rows if r["stack"] == "trl" and r["objective"] == row["objective"]]
    return row[key] / min(peers) if peers else None
