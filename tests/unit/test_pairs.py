from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlstack.config.schema import Objective, ObjectiveName
from rlstack.credit.advantages import weigh_rollouts
from rlstack.credit.assign import assign
from rlstack.credit.pairs import form_group, form_pair
from rlstack.credit.rewarded import ties
from rlstack.data.records import Rollout, ScoredGroup
from tests.scored import scored_group

rewards_or_none = st.lists(st.none() | st.sampled_from([0.0, 0.5, 1.0]), min_size=1, max_size=8)


@given(rewards=rewards_or_none, seed=st.integers())
def test_a_pair_is_one_of_the_best_against_one_of_the_worst(rewards: list[float | None], seed: int) -> None:
    present = {reward for reward in rewards if reward is not None}
    scored = scored_group(rewards)
    pair = form_pair(scored, random.Random(seed))
    if len(present) < 2:
        assert pair is None
    else:
        assert pair is not None and pair.prompt is scored.group.prompt
        assert rewards[pair.rollouts[0].token_ids[0]] == max(present)
        assert rewards[pair.rollouts[1].token_ids[0]] == min(present)


def test_every_correct_and_incorrect_rollout_gets_its_turn() -> None:
    rng, scored = random.Random(0), scored_group([1.0, 0.0, 1.0, 0.0, None, 1.0])
    pairs = [form_pair(scored, rng) for _ in range(600)]
    chosen = Counter(pair.rollouts[0].token_ids[0] for pair in pairs if pair)
    rejected = Counter(pair.rollouts[1].token_ids[0] for pair in pairs if pair)
    assert set(chosen) == {0, 2, 5} and min(chosen.values()) > 150
    assert set(rejected) == {1, 3} and min(rejected.values()) > 250


@given(rewards=rewards_or_none)
def test_a_group_has_every_pair_of_a_better_and_a_worse_rollout(rewards: list[float | None]) -> None:
    scored = scored_group(rewards)
    group = form_group(scored)
    expected = {
        (i, j)
        for i, better in enumerate(rewards)
        for j, worse in enumerate(rewards)
        if better is not None and worse is not None and better > worse
    }
    if group is None:
        assert not expected
        return
    tokens = [rollout.token_ids[0] for rollout in group.rollouts]
    assert tokens == [i for i, reward in enumerate(rewards) if reward is not None]
    pairs = [(tokens[chosen], tokens[rejected]) for chosen, rejected in group.pairs]
    assert sorted(pairs) == sorted(expected)
    assert group.advantages == tuple(example.advantages[0] for example in weigh_rollouts(scored))


def test_correct_rollouts_meet_all_incorrect_ones() -> None:
    group = form_group(scored_group([0.0, 1.0, None, 1.0, 0.0, 0.0]))
    assert group is not None and set(group.pairs) == {(c, r) for c in (1, 2) for r in (0, 3, 4)}


def test_scalar_rewards_give_the_best_against_the_worst() -> None:
    pair = form_pair(scored_group([-1.5, 0.25, None, 3.5, -7.0, 3.25]), random.Random(0))
    assert pair is not None and [r.token_ids[0] for r in pair.rollouts] == [3, 4]


ALL_ROLLOUTS = [(0, 0.5), (0, -0.5), (1, 0.0), (1, 0.0), (3, 0.5), (3, -0.5), (4, 0.0)]


@pytest.mark.parametrize(
    ("objective", "examples"),
    [
        (Objective(name=ObjectiveName.dpo), [(0, 0), (3, 0)]),
        (Objective(name=ObjectiveName.group_dpo), [(0, 0), (3, 0)]),
        (Objective(name=ObjectiveName.group_dpo_grpo), [(0, 0), (3, 0)]),
        (Objective(name=ObjectiveName.grpo), ALL_ROLLOUTS),
        (Objective(name=ObjectiveName.grpo, kl_scale=0.1), ALL_ROLLOUTS),
    ],
    ids=["dpo", "group_dpo", "group_dpo_grpo", "grpo", "grpo with kl"],
)
def test_groups_whose_rewards_tie_are_counted_and_give_no_pair(
    objective: Objective, examples: list[tuple[int, float]]
) -> None:
    rewards: list[list[float | None]] = [[1.0, 0.0], [1.0, 1.0], [None, None], [1.0, None, 0.0], [0.0, None]]
    scored = [scored_group(of_group, row=row) for row, of_group in enumerate(rewards)]
    credit = assign(scored, objective, seed=0, step=0)
    assert [(e.prompt.row, e.advantages[0] if not e.pairs else 0) for e in credit.examples] == examples
    assert credit.metrics() == {"pairs/formed": 2, "pairs/skipped": 3}


@pytest.mark.parametrize("name", [ObjectiveName.grpo, ObjectiveName.group_dpo_grpo])
def test_advantages_are_divided_by_the_standard_deviation_on_demand(name: ObjectiveName) -> None:
    scored = scored_group([1.0, 0.0])
    for std_normalised, expected in ((False, 0.5), (True, 0.5 / 0.5**0.5)):
        objective = Objective(name=name, std_normalised=std_normalised)
        first = assign([scored], objective, seed=0, step=0).examples[0]
        assert first.advantages[0] == pytest.approx(expected, rel=1e-5)


TIED = [7.1, 7.1 + 4e-7, 7.1 - 4e-7, None]  # as a reward model's scores of one text in several batches


@pytest.mark.parametrize("name", ObjectiveName)
def test_rewards_that_differ_by_less_than_the_tolerance_tie(name: ObjectiveName) -> None:
    credit = assign([scored_group(TIED)], Objective(name=name, std_normalised=True), seed=0, step=0)
    assert credit.metrics() == {"pairs/formed": 0, "pairs/skipped": 1}
    assert [example.advantages for example in credit.examples] in ([], [(0.0,)] * 3)


def test_near_extremes_are_as_good_as_the_extremes() -> None:
    scored, rng = scored_group([1.0, 1.0 + 4e-7, 0.5, 0.0, 4e-7]), random.Random(0)
    pairs = [form_pair(scored, rng) for _ in range(100)]
    assert {tuple(int(r.token_ids[0]) for r in p.rollouts) for p in pairs if p} == {
        (chosen, rejected) for chosen in (0, 1) for rejected in (3, 4)
    }
    group = form_group(scored)
    assert group is not None and len(group.pairs) == 2 * 3 + 2


def of_texts(texts: str, rewards: list[float | None]) -> ScoredGroup:
    rollouts = [
        Rollout(token_ids=(i,), generator_logprobs=(0.0,), text=text, finished=True, version=0)
        for i, text in enumerate(texts)
    ]
    return scored_group(rewards, rollouts)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from([0.0, 0.5, 1.0])), min_size=1, max_size=8))
def test_two_of_one_text_are_no_pair(answers: list[tuple[str, float]]) -> None:
    scored = of_texts("".join(text for text, _ in answers), [reward for _, reward in answers])
    better = {(t, u) for t, reward in answers for u, other in answers if reward > other and t != u}
    pair, group = form_pair(scored, random.Random(0)), form_group(scored)
    assert (pair is None) == (group is None) == ties(scored) == (not better)
    if pair is not None and group is not None:
        assert (pair.rollouts[0].text, pair.rollouts[1].text) in better
        assert {(group.rollouts[i].text, group.rollouts[j].text) for i, j in group.pairs} == better


def test_a_best_and_a_worst_of_one_text_leave_the_other_pairs() -> None:
    pair = form_pair(of_texts("aab", [1.0, 0.0, 0.5]), random.Random(0))
    assert pair is not None and {pair.rollouts[0].text, pair.rollouts[1].text} == {"a", "b"}
    assert form_pair(of_texts("aa", [1.0, 0.0]), random.Random(0)) is None


def test_credit_depends_on_seed_and_step_alone() -> None:
    scored = [scored_group([1.0, 0.0] * 8, row=row) for row in range(8)]

    def choices(seed: int, step: int) -> list[object]:
        return assign(scored, Objective(), seed=seed, step=step).examples

    assert choices(0, 0) == choices(0, 0)
    assert choices(0, 0) != choices(0, 1) != choices(1, 0)
