"""From scored answers to what is reported of a task, a version and a run."""

from __future__ import annotations

import math

import pytest

from rlstack.config.schema import Selection
from rlstack.data.records import Outcome, Prompt, Rollout, RolloutGroup, Score
from rlstack.evaluation.answers import AnsweredPrompt
from rlstack.evaluation.evaluator import evaluation_metrics
from rlstack.evaluation.task_measures import may_be_verdicts, task_measures
from rlstack.evaluation.votes import vote_of
from rlstack.telemetry.metrics import check_declared


def answered(
    *rewards: float | None, task: str = "sums", texts: tuple[str, ...] | None = None, length: int = 2
):
    texts = texts or tuple("\\boxed{1}" if reward else "\\boxed{0}" for reward in rewards)
    return AnsweredPrompt(
        task=task,
        row=0,
        problem="1+1",
        answer="1",
        responses=texts,
        rewards=rewards,
        outcomes=tuple(Outcome.timeout if reward is None else Outcome.ok for reward in rewards),
        lengths_tokens=(length,) * len(rewards),
        finished=(True,) * len(rewards),
        verdicts=task in ("sums", "products"),
    )


@pytest.mark.parametrize(
    ("text", "vote"),
    [
        ("The final answer is $\\boxed{\\dfrac{1}{2}}$.", "\\frac{1}{2}"),
        ("\\boxed{ 1/2 }", "\\frac{1}{2}"),
        ("first \\boxed{3}, then \\boxed{\\left( 1, 2 \\right)}.", "(1,2)"),
        ("\\boxed{5\\text{ cm}}", "5"),
        ("\\boxed{7.}", "7"),
        ("no box", None),
        ("\\boxed{.}", None),
    ],
)
def test_votes_are_equal_by_notation(text: str, vote: str | None) -> None:
    assert vote_of(text) == vote


def test_an_answered_prompt_is_what_was_scored() -> None:
    prompt = Prompt(task="t", row=3, problem="1+1", token_ids=(1,), answer="2")
    rollouts = tuple(
        Rollout(token_ids=(2,) * n, generator_logprobs=(-1.0,) * n, text="2", finished=n == 1, version=7)
        for n in (1, 4)
    )
    group = RolloutGroup(step=0, prompt=prompt, rollouts=rollouts)
    scores = (Score(reward=1.0), Score(reward=None, outcome=Outcome.error))
    assert AnsweredPrompt.of(group, scores) == AnsweredPrompt(
        task="t",
        row=3,
        problem="1+1",
        answer="2",
        responses=("2", "2"),
        rewards=(1.0, None),
        outcomes=(Outcome.ok, Outcome.error),
        lengths_tokens=(1, 4),
        finished=(True, False),
    )


def test_a_task_with_verdicts() -> None:
    measures = task_measures([answered(1.0, 0.0, 0.0), answered(1.0, None, 1.0)])
    assert measures["accuracy"] == pytest.approx(1 / 2)  # no verdict counts as wrong
    assert measures["accuracy_stderr"] == pytest.approx(0.5 / math.sqrt(3))  # seeds: 1, 0, 1/2
    assert measures["pass_at_2"] == pytest.approx((2 / 3 + 1) / 2)
    assert measures["pass_at_3"] == 1
    assert measures["majority"] == pytest.approx(1 / 2)
    assert measures["reward"] == pytest.approx(3 / 5)  # of those that have one
    assert measures["length_mean"] == 2


def test_a_task_with_scalar_rewards_has_no_accuracy() -> None:
    measures = task_measures([answered(1.5, 0.0, task="notes"), answered(None, 1.0, task="notes")])
    assert measures == pytest.approx(
        {
            "reward": 2.5 / 3,
            "length_normalised_reward": 2.5 / 6,
            "length_normalised_ratio": 2.5 / 6,
            "length_mean": 2,
            "cut_off": 0,
        }
    )


def test_nothing_is_told_where_nothing_could_be_scored() -> None:
    measures = task_measures([answered(None, None, task="notes")])
    assert measures["reward"] is measures["length_normalised_reward"] is None
    assert "accuracy" not in measures


@pytest.mark.parametrize("task", ["sums", "notes"])
def test_the_measures_of_a_task_do_not_depend_on_the_values_that_come(task: str) -> None:
    """A reward with partial credit may give only 0 and 1 for a while, and a verifier may fail everywhere."""
    versions = [(0.0, 0.0), (1.0, 1.0), (None, None)] + ([(0.5, 0.0)] if task == "notes" else [])
    names = [set(task_measures([answered(*rewards, task=task)])) for rewards in versions]
    assert names == names[:1] * len(names)
    assert ("accuracy" in names[0]) == (task == "sums")


def test_rewards_that_look_like_verdicts_without_being_called_so_are_noticed() -> None:
    assert may_be_verdicts([answered(1.0, None, 0.0, task="notes")])
    assert not may_be_verdicts([answered(1.0, 0.5, task="notes")])
    assert not may_be_verdicts([answered(None, task="notes")])
    assert not may_be_verdicts([answered(1.0, 0.0, task="sums")])


def test_answers_without_a_box_have_no_majority() -> None:
    measures = task_measures([answered(1.0, 0.0, texts=("yes", "no"))])
    assert (measures["accuracy"], measures["majority"]) == (0.5, None)
    metrics = evaluation_metrics(
        [answered(1.0, 0.0, texts=("yes", "no"))], version=0, selection=Selection.mean
    )
    check_declared(metrics)


def test_lines_without_their_kind_are_told_by_their_rewards() -> None:
    for rewards, verdicts in (((1.0, 0.0, None), True), ((1.0, 0.5), False)):
        row = answered(*rewards).to_row()
        del row["verdicts"]
        assert AnsweredPrompt.from_row(row).verdicts is verdicts


MIXED = [
    answered(1.0, 0.0),
    *[answered(1.0, 1.0, task="products")] * 3,
    answered(3.0, 1.0, task="notes", length=4),
]


@pytest.mark.parametrize(
    ("prompts", "selection", "value"),
    [
        (MIXED, Selection.accuracy, 3 / 4),
        (MIXED, Selection.length_normalised_reward, 1 / 2),
        (MIXED, Selection.mean, 5 / 8),
        (MIXED[:1], Selection.mean, 1 / 2),
        (MIXED[-1:], Selection.mean, 1 / 2),
        (MIXED[:1], Selection.length_normalised_reward, None),
        (MIXED[-1:], Selection.accuracy, None),
    ],
)
def test_versions_are_compared_by_the_selection(
    prompts: list[AnsweredPrompt], selection: Selection, value: float | None
) -> None:
    metrics = evaluation_metrics(prompts, version=4, selection=selection)
    assert metrics.get("eval/selection") == pytest.approx(value)


def test_an_evaluation_states_its_version_and_all_its_names_are_declared() -> None:
    metrics = evaluation_metrics(MIXED, version=4, selection=Selection.mean)
    check_declared(metrics)
    assert metrics["eval/version"] == 4
    assert metrics["eval/accuracy"] == pytest.approx(3 / 4)  # tasks weigh the same, not prompts
    assert metrics["eval/accuracy_stderr"] == pytest.approx(1 / 4)  # seeds: 1 and 1/2
    assert metrics["eval/products/accuracy"] == 1
    assert metrics["eval/notes/reward"] == 2
    assert "eval/notes/accuracy" not in metrics
