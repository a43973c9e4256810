from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlstack.credit.metrics import dynamics, rollout_metrics
from rlstack.data.records import Prompt, Rollout, RolloutGroup, ScoredGroup, TrainingExample
from tests.scored import scored_group

PROMPT = Prompt(task="a", row=0, problem="", token_ids=(1,))


def rollout(length: int, *, logprob: float = -0.5, finished: bool = True) -> Rollout:
    return Rollout(
        token_ids=(7,) * length,
        generator_logprobs=(logprob,) * length,
        text="x" * length,
        finished=finished,
        version=3,
    )


def group_of(*lengths_and_rewards: tuple[int, float | None]) -> ScoredGroup:
    lengths, rewards = zip(*lengths_and_rewards, strict=True)
    return scored_group(rewards, map(rollout, lengths))


def rewards_of(scored: ScoredGroup) -> tuple[float, ...]:
    return tuple(0.0 if score.reward is None else score.reward for score in scored.scores)


def pair(scored: ScoredGroup, chosen: int, rejected: int) -> TrainingExample:
    rollouts, rewards = scored.group.rollouts, rewards_of(scored)
    return TrainingExample.of_pair(
        prompt=PROMPT,
        chosen=rollouts[chosen],
        rejected=rollouts[rejected],
        rewards=(rewards[chosen], rewards[rejected]),
    )


def whole_group(scored: ScoredGroup, *pairs: tuple[int, int]) -> TrainingExample:
    rollouts = scored.group.rollouts
    return TrainingExample(
        prompt=PROMPT,
        rollouts=rollouts,
        rewards=rewards_of(scored),
        pairs=pairs,
        advantages=(0.0,) * len(rollouts),
    )


def test_lengths_cut_offs_and_entropy_are_those_of_all_rollouts() -> None:
    rollouts = (rollout(2, logprob=-1.0), rollout(6, logprob=-0.2), rollout(4, logprob=0.0, finished=False))
    metrics = rollout_metrics([RolloutGroup(step=5, prompt=PROMPT, rollouts=rollouts)], 5)
    assert metrics == {
        "version_age": 2,
        "rollout/prompt_length_mean": 1,
        "rollout/length_mean": 4,
        "rollout/length_max": 6,
        "rollout/cut_off": pytest.approx(1 / 3),
        "rollout/entropy_estimate": pytest.approx((2 * 1.0 + 6 * 0.2) / 12),  # a token counts once
        "tokens/generated": 12,
    }


def test_verdicts_and_pairs_of_binary_rewards() -> None:
    first = group_of((10, 1.0), (20, 0.0), (40, 0.0), (99, None))
    second = group_of((30, 1.0), (50, 1.0))
    assert dynamics([first, second], [pair(first, 0, 2)]) == {
        "pairs/yield": 0.5,
        "rollout/length_correct_mean": 30,
        "rollout/length_incorrect_mean": 30,
        "rollout/length_chosen_mean": 10,
        "rollout/length_rejected_mean": 40,
        "reward/margin": 1,
    }


def test_scalar_rewards_have_no_verdict_even_where_one_is_zero() -> None:
    scored = group_of((10, 0.0), (20, 1.0), (30, 2.5))
    assert dynamics([scored], [pair(scored, 2, 0)]) == {
        "pairs/yield": 1,
        "rollout/length_chosen_mean": 30,
        "rollout/length_rejected_mean": 10,
        "reward/margin": 2.5,
    }


def test_each_example_counts_once_however_many_its_pairs() -> None:
    first = group_of((10, 3.0), (20, 2.0), (60, 0.0))
    second = group_of((5, 1.0), (7, 0.0))
    examples = [whole_group(first, (0, 1), (0, 2), (1, 2)), whole_group(second, (0, 1))]
    metrics = dynamics([first, second], examples)
    assert metrics["rollout/length_chosen_mean"] == pytest.approx((40 / 3 + 5) / 2)
    assert metrics["rollout/length_rejected_mean"] == pytest.approx((140 / 3 + 7) / 2)
    assert metrics["reward/margin"] == pytest.approx(((1 + 3 + 2) / 3 + 1) / 2)


def test_weighted_rollouts_and_groups_without_a_verdict_have_no_pairs() -> None:
    scored = group_of((10, 0.0), (20, 0.0), (30, None))
    weighted = [TrainingExample.of_rollout(prompt=PROMPT, rollout=scored.group.rollouts[0], advantage=0.0)]
    for examples in (weighted, []):
        assert dynamics([scored], examples) == {"pairs/yield": 0, "rollout/length_incorrect_mean": 15}


@given(st.lists(st.tuples(st.integers(1, 9), st.sampled_from([0.0, 1.0])), min_size=2, max_size=8))
def test_lengths_by_verdict_make_up_the_mean_length(rows: list[tuple[int, float]]) -> None:
    scored = group_of(*rows)
    metrics = dynamics([scored], [])
    num_correct = sum(reward for _, reward in rows)
    total = num_correct * metrics.get("rollout/length_correct_mean", 0) + (
        len(rows) - num_correct
    ) * metrics.get("rollout/length_incorrect_mean", 0)
    assert total == pytest.approx(sum(length for length, _ in rows))
