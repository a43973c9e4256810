"""What a step's rewards say, as metrics. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import fmean

from rlstack.data.records import Outcome, ScoredGroup


def reward_metrics(scored: Sequence[ScoredGroup]) -> dict[str, float]:
    """reward/mean, also of each task; both length-normalised forms; counts of what went wrong, in rollouts,
    and the share of the rollouts without a reward.

    Means are over the rollouts that have a reward, and absent where none has one. Lengths are in tokens, the
    end token included.
    """
    rewards, lengths = _rewards_and_lengths(scored)
    scores = [score for group in scored for score in group.scores]
    metrics: dict[str, float] = {
        "reward/timeouts": sum(score.outcome is Outcome.timeout for score in scores),
        "reward/errors": sum(score.outcome is Outcome.error for score in scores),
        "reward/missing": sum(score.reward is None for score in scores) / max(len(scores), 1),
        "reward/truncated": sum(score.truncated for score in scores),
    }
    if rewards:
        mean, ratio = length_normalised(rewards, lengths)
        metrics |= {
            "reward/mean": fmean(rewards),
            "reward/length_normalised_mean": mean,
            "reward/length_normalised_ratio": ratio,
        }
    return metrics | dict(_of_each_task(scored))


def length_normalised(rewards: Sequence[float], lengths_tokens: Sequence[int]) -> tuple[float, float]:
    """The mean of reward / length, and mean reward / mean length; per token.

    In the first every rollout counts the same, in the second every token. They differ where long answers get
    other rewards than short ones, in sign too if rewards have both signs.
    """
    per_rollout = [reward / max(length, 1) for reward, length in zip(rewards, lengths_tokens, strict=True)]
    return fmean(per_rollout), fmean(rewards) / max(fmean(lengths_tokens), 1.0)


def _rewards_and_lengths(scored: Sequence[ScoredGroup]) -> tuple[list[float], list[int]]:
    """Of the rollouts that have a reward."""
    pairs = [
        (score.reward, len(rollout.token_ids))
        for group in scored
        for rollout, score in zip(group.group.rollouts, group.scores, strict=True)
        if score.reward is not None
    ]
    return [reward for reward, _ in pairs], [length for _, length in pairs]


def _of_each_task(scored: Sequence[ScoredGroup]) -> Iterator[tuple[str, float]]:
    for task in dict.fromkeys(group.group.prompt.task for group in scored):
        rewards, _ = _rewards_and_lengths([group for group in scored if group.group.prompt.task == task])
        if rewards:
            yield f"reward/mean/{task}", fmean(rewards)
