from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlstack.config.schema import Objective, ObjectiveName
from rlstack.credit.assign import assign
from rlstack.credit.pairs import form_pair
from rlstack.data.records import Outcome, Prompt, Rollout, RolloutGroup, Score, ScoredGroup

rewards_or_none = st.lists(st.none() | st.sampled_from([0.0, 0.5, 1.0]), min_size=1, max_size=8)


def scored_group(rewards: list[float | None], *, row: int = 0) -> ScoredGroup:
    """Rollout i has the one token i."""
    rollouts = [
        Rollout(token_ids=(i,), generator_logprobs=(0.0,), text="", finished=True, version=0)
        for i in range(len(rewards))
    ]
    prompt = Prompt(task="a", row=row, problem="", token_ids=(1,))
    return ScoredGroup(
        group=RolloutGroup(step=0, prompt=prompt, rollouts=tuple(rollouts)),
        scores=tuple(
            Score(reward=None, outcome=Outcome.timeout) if reward is None else Score(reward=reward)
            for reward in rewards
        ),
    )


@given(rewards=rewards_or_none, seed=st.integers())
def test_a_pair_is_one_of_the_best_against_one_of_the_worst(rewards: list[float | None], seed: int) -> None:
    present = {reward for reward in rewards if reward is not None}
    scored = scored_group(rewards)
    pair = form_pair(scored, random.Random(seed))
    if len(present) < 2:
        assert pair is None
    else:
        assert pair is not None and pair.prompt is scored.group.prompt
        assert rewards[pair.chosen.token_ids[0]] == max(present)
        assert rewards[pair.rejected.token_ids[0]] == min(present)


def test_every_correct_and_incorrect_rollout_gets_its_turn() -> None:
    rng, scored = random.Random(0), scored_group([1.0, 0.0, 1.0, 0.0, None, 1.0])
    pairs = [form_pair(scored, rng) for _ in range(600)]
    chosen = Counter(pair.chosen.token_ids[0] for pair in pairs if pair)
    rejected = Counter(pair.rejected.token_ids[0] for pair in pairs if pair)
    assert set(chosen) == {0, 2, 5} and min(chosen.values()) > 150
    assert set(rejected) == {1, 3} and min(rejected.values()) > 250


ALL_ROLLOUTS = [(0, 0.5), (0, -0.5), (1, 0.0), (1, 0.0), (3, 0.5), (3, -0.5), (4, 0.0)]


@pytest.mark.parametrize(
    ("objective", "examples"),
    [
        (Objective(name=ObjectiveName.dpo), [(0, 0), (3, 0)]),
        (Objective(name=ObjectiveName.grpo), ALL_ROLLOUTS),
        (Objective(name=ObjectiveName.grpo, kl_scale=0.1), ALL_ROLLOUTS),
    ],
    ids=["dpo", "grpo", "grpo with kl"],
)
def test_groups_whose_rewards_tie_are_counted_and_give_no_pair(
    objective: Objective, examples: list[tuple[int, float]]
) -> None:
    rewards: list[list[float | None]] = [[1.0, 0.0], [1.0, 1.0], [None, None], [1.0, None, 0.0], [0.0, None]]
    scored = [scored_group(of_group, row=row) for row, of_group in enumerate(rewards)]
    credit = assign(scored, objective, seed=0, step=0)
    assert [(e.prompt.row, getattr(e, "advantage", 0)) for e in credit.examples] == examples
    assert credit.metrics() == {"pairs/formed": 2, "pairs/skipped": 3}


def test_credit_depends_on_seed_and_step_alone() -> None:
    scored = [scored_group([1.0, 0.0] * 8, row=row) for row in range(8)]

    def choices(seed: int, step: int) -> list[object]:
        return assign(scored, Objective(), seed=seed, step=step).examples

    assert choices(0, 0) == choices(0, 0)
    assert choices(0, 0) != choices(0, 1) != choices(1, 0)
