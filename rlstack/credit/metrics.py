"""Metrics of a step's rollouts: their lengths, their rewards by verdict, and the pairs they form. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import fmean

import numpy as np

from rlstack.credit.rewarded import ties
from rlstack.data.records import RolloutGroup, ScoredGroup, TrainingExample

_VERDICTS = {0.0, 1.0}  # the rewards of a verifier


def rollout_metrics(groups: Sequence[RolloutGroup], step: int) -> dict[str, float]:
    """Lengths in tokens (end token included), the share cut off, and the age of the version in steps.

    rollout/entropy_estimate is minus the mean of the generator's logprobs over all sampled tokens, in nats: a
    Monte Carlo estimate of its entropy where rollout.temperature and rollout.top_p are 1. Elsewhere the
    logprobs are those before temperature and top-p of tokens sampled after them: a cross-entropy.
    """
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    lengths = [len(rollout.token_ids) for rollout in rollouts]
    total = sum(float(rollout.generator_logprobs.sum(dtype=np.float64)) for rollout in rollouts)
    return {
        "version_age": step - rollouts[0].version,
        "rollout/length_mean": fmean(lengths),
        "rollout/length_max": max(lengths),
        "rollout/prompt_length_mean": fmean(len(group.prompt.token_ids) for group in groups),
        "rollout/cut_off": fmean(not rollout.finished for rollout in rollouts),
        "rollout/entropy_estimate": -total / sum(lengths),
        "tokens/generated": sum(lengths),
    }


def pair_yield(scored: Sequence[ScoredGroup]) -> dict[str, float]:
    """pairs/formed/{task} and pairs/skipped/{task}, in prompts, of every task in the batch."""
    total = Counter(group.group.prompt.task for group in scored)
    skipped = Counter(group.group.prompt.task for group in scored if ties(group))
    formed: dict[str, float] = {f"pairs/formed/{task}": total[task] - skipped[task] for task in total}
    return formed | {f"pairs/skipped/{task}": skipped[task] for task in total}


def dynamics(scored: Sequence[ScoredGroup], examples: Sequence[TrainingExample]) -> dict[str, float]:
    """Mean lengths in tokens by verdict and by side of a pair, the reward margin, and the pair yield.

    Args:
        scored: the step's groups.
        examples: those that credit formed of them.

    Returns:
        pairs/yield: the share of the prompts whose rewards differ.
        rollout/length_correct_mean, rollout/length_incorrect_mean: over rollouts of reward 1 and of reward 0,
            in groups that have no other rewards; each absent without such rollouts.
        rollout/length_chosen_mean, rollout/length_rejected_mean, reward/margin (chosen minus rejected): the
            mean over the pairs of an example, then over examples; absent without pairs.
    """
    metrics = {"pairs/yield": fmean(not ties(group) for group in scored)}
    correct, incorrect = _lengths_by_verdict(scored)
    if correct:
        metrics["rollout/length_correct_mean"] = fmean(correct)
    if incorrect:
        metrics["rollout/length_incorrect_mean"] = fmean(incorrect)
    if paired := [example for example in examples if example.pairs]:
        chosen, rejected, margins = zip(*map(_mean_of_pairs, paired), strict=True)
        metrics |= {
            "rollout/length_chosen_mean": fmean(chosen),
            "rollout/length_rejected_mean": fmean(rejected),
            "reward/margin": fmean(margins),
        }
    return metrics


def _lengths_by_verdict(scored: Sequence[ScoredGroup]) -> tuple[list[int], list[int]]:
    correct: list[int] = []
    incorrect: list[int] = []
    for group in scored:
        rewards = [score.reward for score in group.scores]
        if set(rewards) - {None} <= _VERDICTS:
            for rollout, reward in zip(group.group.rollouts, rewards, strict=True):
                if reward is not None:
                    (correct if reward else incorrect).append(len(rollout.token_ids))
    return correct, incorrect


def _mean_of_pairs(example: TrainingExample) -> tuple[float, float, float]:
    """The lengths of the chosen and of the rejected rollout and the margin of the rewards."""
    lengths = [len(rollout.token_ids) for rollout in example.rollouts]
    return (
        fmean(lengths[chosen] for chosen, _ in example.pairs),
        fmean(lengths[rejected] for _, rejected in example.pairs),
        fmean(example.rewards[chosen] - example.rewards[rejected] for chosen, rejected in example.pairs),
    )
