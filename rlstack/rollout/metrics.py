"""What a step's rollouts look like, whatever they are worth. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from rlstack.data.records import RolloutGroup


def rollout_metrics(groups: Sequence[RolloutGroup], step: int) -> dict[str, float]:
    """Lengths in tokens (end token included), the share cut off, and the age of the version in steps.

    rollout/entropy_estimate is minus the mean of the generator's logprobs over all sampled tokens, in nats: a
    Monte Carlo estimate of its entropy where rollout.temperature and rollout.top_p are 1. Elsewhere the
    logprobs are those before temperature and top-p of tokens sampled after them: a cross-entropy.
    """
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    lengths = [len(rollout.token_ids) for rollout in rollouts]
    logprobs = [logprob for rollout in rollouts for logprob in rollout.generator_logprobs]
    return {
        "version_age": step - rollouts[0].version,
        "rollout/length_mean": statistics.fmean(lengths),
        "rollout/length_max": max(lengths),
        "rollout/prompt_length_mean": statistics.fmean(len(group.prompt.token_ids) for group in groups),
        "rollout/cut_off": statistics.fmean(not rollout.finished for rollout in rollouts),
        "rollout/entropy_estimate": -statistics.fmean(logprobs),
        "tokens/generated": sum(lengths),
    }
