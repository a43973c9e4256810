"""Accuracy is a mean over seeds, with the standard error of that mean."""

import math

import pytest

from rlstack.data.records import Outcome, Prompt, Rollout, RolloutGroup, Score, ScoredGroup
from rlstack.evaluation.accuracy import accuracy


def group(*rewards):
    prompt = Prompt(task="t", row=0, problem="1+1", token_ids=(1,))
    rollout = Rollout(token_ids=(2,), generator_logprobs=(-1.0,), text="2", finished=True, version=7)
    scores = tuple(
        Score(reward=reward, outcome=Outcome.ok if reward is not None else Outcome.timeout)
        for reward in rewards
    )
    return ScoredGroup(
        group=RolloutGroup(step=0, prompt=prompt, rollouts=(rollout,) * len(rewards)), scores=scores
    )


def test_mean_and_standard_error_over_seeds():
    result = accuracy([group(1.0, 0.0), group(1.0, 1.0)])  # seed accuracies 1 and 1/2
    assert result.mean == pytest.approx(0.75)
    assert result.stderr == pytest.approx(math.sqrt(0.125) / math.sqrt(2))
    assert result.version == 7


def test_an_answer_without_a_reward_counts_as_wrong():
    assert accuracy([group(1.0), group(None)]).mean == pytest.approx(0.5)


def test_a_single_seed_has_no_standard_error():
    assert accuracy([group(1.0), group(0.0)]).stderr is None
