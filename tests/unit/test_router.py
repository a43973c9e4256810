"""Rows of one batch with different rewards: each is scored by its own, all of them side by side."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlstack.config.schema import Data, RunConfig, Task
from rlstack.credit.metrics import pair_yield
from rlstack.data.records import Outcome, Prompt, Rollout, RolloutGroup, Score, ScoredGroup
from rlstack.rewards.metrics import length_normalised, reward_metrics
from rlstack.rewards.router import Rewards
from rlstack.rewards.scorer import Question
from rlstack.telemetry.metrics import check_declared

REWARD_OF = {"notes": "judge", "chat": "judge", "essays": "length"}


class Judge:
    """Scores `name`/problem/response by a fixed formula and notes what it was given."""

    depends_on_batch = False

    def __init__(self, factor: float) -> None:
        self.factor = factor
        self.asked: list[Question] = []

    def score(self, questions: Sequence[Question]) -> list[tuple[Score, ...]]:
        self.asked += questions
        return [
            tuple(Score(reward=self.factor * (len(q.problem) + len(text))) for text in q.responses)
            for q in questions
        ]

    def close(self) -> None:
        raise AssertionError("models are not the router's to close")


def config() -> RunConfig:
    return RunConfig(data=Data(tasks=[Task(name=n, path="", reward=r) for n, r in REWARD_OF.items()]))


def group_of(task: str, problem: str, *texts: str) -> RolloutGroup:
    rollouts = tuple(
        Rollout(token_ids=(1,) * len(text), generator_logprobs=(), text=text, finished=True, version=0)
        for text in texts
    )
    return RolloutGroup(
        step=0, prompt=Prompt(task=task, row=0, problem=problem, token_ids=()), rollouts=rollouts
    )


@given(tasks=st.lists(st.sampled_from(list(REWARD_OF)), max_size=8))
def test_every_row_of_a_mixed_batch_gets_its_own_tasks_reward(tasks: list[str]) -> None:
    judges = {"judge": Judge(1.0), "length": Judge(-1000.0)}
    groups = [group_of(task, "p" * i, "a", "bb") for i, task in enumerate(tasks)]
    with Rewards(config(), judges) as rewards:
        scored = rewards.score(groups)
    assert [s.group for s in scored] == groups
    for i, (task, s) in enumerate(zip(tasks, scored, strict=True)):
        factor = judges[REWARD_OF[task]].factor
        assert [score.reward for score in s.scores] == [factor * (i + 1), factor * (i + 2)]
    assert len(judges["judge"].asked) == sum(REWARD_OF[task] == "judge" for task in tasks)


def test_rewards_work_side_by_side() -> None:
    """Two scorers that each wait for the other to have begun."""
    both = threading.Barrier(2, timeout=30)

    class Waiting(Judge):
        def score(self, questions: Sequence[Question]) -> list[tuple[Score, ...]]:
            both.wait()
            return super().score(questions)

    with Rewards(config(), {"judge": Waiting(1.0), "length": Waiting(2.0)}) as rewards:
        scored = rewards.score([group_of("notes", "", "a"), group_of("essays", "", "a")])
    assert [s.scores[0].reward for s in scored] == [1.0, 2.0]


def test_what_no_response_can_be_scored_without_is_an_exception() -> None:
    class Dead(Judge):
        def score(self, questions: Sequence[Question]) -> list[tuple[Score, ...]]:
            raise RuntimeError("the reward model died")

    with (
        Rewards(config(), {"judge": Dead(1.0), "length": Judge(1.0)}) as rewards,
        pytest.raises(RuntimeError, match="the reward model died"),
    ):
        rewards.score([group_of("notes", "", "a")])


def test_metrics_of_a_mixed_batch() -> None:
    notes = ScoredGroup(
        group=group_of("notes", "", "a", "bbb", "c"),
        scores=(
            Score(reward=-1.0),
            Score(reward=6.0, truncated=True),
            Score(reward=None, outcome=Outcome.error),
        ),
    )
    essays = ScoredGroup(
        group=group_of("essays", "", "dddd", "e"),
        scores=(Score(reward=3.0), Score(reward=None, outcome=Outcome.timeout)),
    )
    nothing = ScoredGroup(
        group=group_of("chat", "", "f"), scores=(Score(reward=None, outcome=Outcome.error),)
    )
    metrics = reward_metrics([notes, essays, nothing])
    assert metrics == {
        "reward/mean": pytest.approx(8 / 3),
        "reward/mean/notes": 2.5,
        "reward/mean/essays": 3.0,
        "reward/length_normalised_mean": pytest.approx((-1 / 1 + 6 / 3 + 3 / 4) / 3),
        "reward/length_normalised_ratio": pytest.approx((-1 + 6 + 3) / (1 + 3 + 4)),
        "reward/timeouts": 1,
        "reward/errors": 2,
        "reward/missing": 0.5,
        "reward/truncated": 1,
    }
    pairs = pair_yield([notes, essays, nothing])
    assert pairs == {
        "pairs/formed/notes": 1,
        "pairs/formed/essays": 0,
        "pairs/formed/chat": 0,
        "pairs/skipped/notes": 0,
        "pairs/skipped/essays": 1,
        "pairs/skipped/chat": 1,
    }
    check_declared(metrics | pairs)


@given(rewards=st.lists(st.floats(-10, 10), min_size=1, max_size=9), length=st.integers(1, 100))
def test_both_length_normalised_forms_agree_where_all_answers_are_equally_long(
    rewards: list[float], length: int
) -> None:
    mean, ratio = length_normalised(rewards, [length] * len(rewards))
    assert mean == pytest.approx(ratio, abs=1e-9)
    assert mean == pytest.approx(fmean(rewards) / length, abs=1e-9)


def test_the_length_normalised_forms_differ_in_sign() -> None:
    """One short bad answer against one long good one."""
    mean, ratio = length_normalised([-1.0, 3.0], [1, 100])
    assert mean == pytest.approx(-0.485)
    assert ratio == pytest.approx(2 / 101)
