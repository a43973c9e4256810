"""Rollouts at the token limit: trained on, masked, or penalised."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlstack.config.objective import cut_off_problems
from rlstack.config.resume import resume_problems
from rlstack.config.schema import CutOff, Objective, ObjectiveName, RunConfig
from rlstack.credit.assign import Credit, assign, has_zero_loss
from rlstack.credit.cut_off import length_penalty
from rlstack.data.records import Rollout, ScoredGroup, TrainingExample
from tests.scored import scored_group

LIMIT = 10
DPO, GROUP_DPO, GRPO, COMBINED = (
    ObjectiveName.dpo,
    ObjectiveName.group_dpo,
    ObjectiveName.grpo,
    ObjectiveName.group_dpo_grpo,
)


def group(rewards: Sequence[float | None], lengths: Sequence[int]) -> ScoredGroup:
    """Rollouts as long as LIMIT are cut off."""
    rollouts = [
        Rollout(
            token_ids=(i,) * length,
            generator_logprobs=(0.0,) * length,
            text=str(i),
            finished=length < LIMIT,
            version=0,
        )
        for i, length in enumerate(lengths)
    ]
    return scored_group(rewards, rollouts)


def credit_of(scored: ScoredGroup, name: ObjectiveName, **changes: object) -> Credit:
    return assign([scored], Objective(name=name, **changes), seed=0, step=0, max_new_tokens=LIMIT)


@pytest.mark.parametrize(
    ("length", "expected"),
    [(1, 0.0), (16384, 0.0), (16385, -1 / 4096), (18432, -0.5), (20480, -1.0), (30000, -1.0)],
)
def test_the_penalty_is_that_of_the_paper(length: int, expected: float) -> None:
    """With the paper's own L_max and L_cache (arXiv 2503.14476, section 4.1)."""
    assert length_penalty(length, limit_tokens=20480, buffer_tokens=4096) == pytest.approx(expected)


@given(limit=st.integers(1, 50), buffer=st.integers(1, 50), length=st.integers(0, 60))
def test_the_penalty_falls_with_the_length_from_0_to_minus_1(limit: int, buffer: int, length: int) -> None:
    def penalty(tokens: int) -> float:
        return length_penalty(tokens, limit_tokens=limit, buffer_tokens=buffer)

    assert -1 <= penalty(length + 1) <= penalty(length) <= 0
    assert penalty(limit) == -1


def test_a_penalty_lowers_the_rewards_that_credit_compares_and_is_reported() -> None:
    scored = group([1.0, 1.0, None], [2, LIMIT, LIMIT])
    for name in ObjectiveName:
        credit = credit_of(scored, name, cut_off=CutOff.penalty, cut_off_penalty=0.5, cut_off_buffer_tokens=4)
        assert [score.reward for score in credit.groups[0].scores] == [1.0, 0.5, None]
        assert credit.metrics() == {
            "pairs/formed": 1,
            "pairs/skipped": 0,
            "reward/cut_off_penalty_mean": -0.25,
        }
    assert [score.reward for score in scored.scores] == [1.0, 1.0, None]  # what is logged as reward/mean


def test_the_buffer_is_a_fifth_of_the_limit_unless_it_is_given() -> None:
    scored = group([0.0, 0.0, 0.0], [LIMIT - 2, LIMIT - 1, LIMIT])
    (group_,) = credit_of(scored, DPO, cut_off=CutOff.penalty).groups
    assert [score.reward for score in group_.scores] == [0.0, -0.5, -1.0]


def test_a_penalty_without_the_limit_is_refused() -> None:
    with pytest.raises(ValueError, match="max_new_tokens"):
        assign([group([0.0], [1])], Objective(cut_off=CutOff.penalty), seed=0, step=0)


def test_masked_rollouts_are_in_no_pair() -> None:
    scored = group([1.0, 0.0, 0.0, 1.0], [LIMIT, 3, LIMIT, 4])
    (pair,) = credit_of(scored, DPO, cut_off=CutOff.mask).examples
    assert isinstance(pair, TrainingExample)
    assert (pair.rollouts[0].token_ids[0], pair.rollouts[1].token_ids[0]) == (3, 1)
    for name in (GROUP_DPO, COMBINED):
        (found,) = credit_of(scored, name, cut_off=CutOff.mask).examples
        assert isinstance(found, TrainingExample)
        assert [rollout.token_ids[0] for rollout in found.rollouts] == [1, 3]
        assert found.pairs == ((1, 0),) and found.advantages == (-0.5, 0.5)


@pytest.mark.parametrize("name", [DPO, GROUP_DPO, COMBINED])
def test_a_group_whose_contrast_is_masked_gives_no_pair_and_is_counted_so(name: ObjectiveName) -> None:
    credit = credit_of(group([1.0, 0.0, 0.0], [3, LIMIT, LIMIT]), name, cut_off=CutOff.mask)
    assert credit.examples == []
    assert credit.metrics() == {"pairs/formed": 0, "pairs/skipped": 1}


@pytest.mark.parametrize("scale", [0.0, 0.1])
def test_under_grpo_a_masked_rollout_has_no_loss_and_counts_in_the_mean(scale: float) -> None:
    objective = Objective(name=GRPO, cut_off=CutOff.mask, kl_scale=scale)
    scored = group([1.0, 0.0, 0.0, 0.0], [3, LIMIT, 3, LIMIT])
    examples = assign([scored], objective, seed=0, step=0).examples
    assert [example.advantages[0] for example in examples] == [0.75, -0.25, -0.25, -0.25]
    assert [has_zero_loss(example, objective) for example in examples] == [False, True, False, True]


def test_what_is_cut_off_is_trained_on_by_default() -> None:
    scored = group([1.0, 0.0], [LIMIT, LIMIT])
    for name in ObjectiveName:
        credit = credit_of(scored, name)
        assert credit.groups == [scored] and len(credit.examples) == (2 if name is GRPO else 1)
        assert not any(has_zero_loss(example, Objective(name=name)) for example in credit.examples)


@pytest.mark.parametrize(
    ("others", "expected"),
    [
        ({}, True),
        ({"clip_ratio_high": 0.3}, True),
        ({"tis_cap": 2.0}, True),
        ({"kl_scale": 0.1}, False),
        ({"entropy_scale": 0.1}, False),
        ({"loss": "mine:Loss"}, False),
    ],
)
def test_an_advantage_of_zero_has_no_loss_unless_another_term_acts(others: dict, expected: bool) -> None:
    objective = Objective(name=GRPO, **others)
    credit = assign([group([1.0, 1.0], [2, 3])], objective, seed=0, step=0)
    assert [has_zero_loss(example, objective) for example in credit.examples] == [expected] * 2
    different = assign([group([1.0, 0.0], [2, 3])], objective, seed=0, step=0)
    assert not any(has_zero_loss(example, objective) for example in different.examples)


def with_objective(**changes: object) -> RunConfig:
    config = RunConfig()
    config.rollout.max_new_tokens, config.objective = LIMIT, Objective(**changes)
    return config


def test_settings_of_the_penalty_are_for_the_penalty() -> None:
    accepted = [{}, {"cut_off": CutOff.mask}, {"cut_off": CutOff.penalty, "cut_off_buffer_tokens": LIMIT}]
    assert [list(cut_off_problems(with_objective(**changes))) for changes in accepted] == [[], [], []]
    (unused,) = cut_off_problems(with_objective(cut_off_penalty=0.5))
    assert unused.startswith("objective.cut_off_penalty = 0.5: objective.cut_off = train has no penalty")
    (large,) = cut_off_problems(with_objective(cut_off=CutOff.penalty, cut_off_buffer_tokens=LIMIT + 1))
    assert large.startswith("objective.cut_off_buffer_tokens = 11: at most 10 is accepted")


def test_a_run_does_not_go_on_with_another_cut_off() -> None:
    (problem,) = resume_problems(with_objective(), with_objective(cut_off=CutOff.mask))
    assert problem.startswith("objective.cut_off = ")
