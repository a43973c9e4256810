"""A reward beside the rest: side by side, or batch by batch where the scores change with the batch."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest

from rlstack.config.schema import Data, RunConfig, Task
from rlstack.data.records import Prompt, Rollout, RolloutGroup, Score
from rlstack.rewards.lane import Lane
from rlstack.rewards.router import Rewards
from rlstack.rewards.scorer import Question
from rlstack.rewards.scoring import CHUNK_PROMPTS

LIMIT_S = 10.0


class Gate:
    """Scores by the length of the problem; the first call waits until it is let go."""

    def __init__(self, *, depends_on_batch: bool) -> None:
        self.depends_on_batch = depends_on_batch
        self.begun, self.let_go = threading.Event(), threading.Event()
        self.calls: list[list[str]] = []

    def score(self, questions: Sequence[Question]) -> list[tuple[Score, ...]]:
        self.calls.append([question.problem for question in questions])
        self.begun.set()
        assert self.let_go.wait(LIMIT_S)
        if self.calls[-1][0] == "bad":
            raise RuntimeError("the judge died")
        return [tuple(Score(reward=float(len(q.problem))) for _ in q.responses) for q in questions]

    def close(self) -> None:
        self.let_go.set()


def question(problem: str) -> Question:
    return Question(problem=problem, answer=None, responses=("a", "b"))


def test_the_first_is_done_while_another_takes_long() -> None:
    """Two workers and a call in waiting; of a reward whose scores change with the batch one at a time."""
    slow, quick = threading.Event(), threading.Barrier(2)

    class Scorer(Gate):
        def score(self, questions: Sequence[Question]) -> list[tuple[Score, ...]]:
            if questions[0].problem == "slow":
                assert slow.wait(LIMIT_S)
            else:
                quick.wait(LIMIT_S)  # side by side with the other one
            return super().score(questions)

    scorer = Scorer(depends_on_batch=False)
    scorer.let_go.set()
    lane = Lane("judge", scorer, num_workers=2)
    first, *others = [lane.start([question(problem)]) for problem in ("slow", "bb", "ccc")]
    assert [job.result(LIMIT_S)[0][0].reward for job in others] == [2.0, 3.0]
    assert not first.done()
    slow.set()
    assert first.result(LIMIT_S)[0][1].reward == 4.0
    lane.close()


def test_a_reward_whose_scores_change_with_the_batch_gets_one_call_at_a_time() -> None:
    scorer = Gate(depends_on_batch=True)
    lane = Lane("judge", scorer, num_workers=2)
    jobs = [lane.start([question("a"), question("bb")]), lane.start([question("ccc")])]
    assert scorer.begun.wait(LIMIT_S)
    assert scorer.calls == [["a", "bb"]]
    scorer.let_go.set()
    assert [[scores[0].reward for scores in job.result(LIMIT_S)] for job in jobs] == [[1.0, 2.0], [3.0]]
    lane.close()


def test_a_failure_is_that_of_the_questions_scored_together_and_of_no_others() -> None:
    scorer = Gate(depends_on_batch=True)
    lane = Lane("judge", scorer, num_workers=1)
    bad, good = lane.start([question("bad")]), lane.start([question("good")])
    scorer.let_go.set()
    with pytest.raises(RuntimeError, match="the judge died"):
        bad.result(LIMIT_S)
    assert good.result(LIMIT_S)[0][0].reward == 4.0
    lane.close()


def group(task: str, problem: str) -> RolloutGroup:
    rollout = Rollout(token_ids=(1,), generator_logprobs=(0.0,), text="a", finished=True, version=0)
    prompt = Prompt(task=task, row=0, problem=problem, token_ids=(1,))
    return RolloutGroup(step=0, prompt=prompt, rollouts=(rollout,))


def test_one_rewards_slowness_does_not_hold_up_another_and_batches_are_whole() -> None:
    quick, slow = Gate(depends_on_batch=False), Gate(depends_on_batch=True)
    quick.let_go.set()
    tasks = [Task(name=name, path="", reward=name) for name in ("quick", "slow")]
    groups = [group("slow", "a"), group("quick", "bb"), group("slow", "ccc"), group("quick", "dddd")]
    with Rewards(RunConfig(data=Data(tasks=tasks)), {"quick": quick, "slow": slow}) as rewards:
        scoring = rewards.expect([g.prompt for g in groups])
        scoring.add(2, groups[2])
        scoring.add(3, groups[3])
        assert quick.begun.wait(LIMIT_S) and not slow.begun.is_set()  # slow waits for the rest of its share
        scoring.add(0, groups[0])
        assert slow.begun.wait(LIMIT_S)
        scoring.add(1, groups[1])
        slow.let_go.set()
        scored = scoring.result()
    assert [s.group for s in scored] == groups
    assert [s.scores[0].reward for s in scored] == [1.0, 2.0, 3.0, 4.0]
    assert slow.calls == [["a", "ccc"]]
    assert sorted(problem for call in quick.calls for problem in call) == ["bb", "dddd"]


def test_a_reward_model_gets_the_same_chunks_as_they_fill_whatever_order_groups_come_in() -> None:
    model = Gate(depends_on_batch=True)
    model.let_go.set()
    tasks = [Task(name="model", path="", reward="model")]
    groups = [group("model", "x" * (i + 1)) for i in range(CHUNK_PROMPTS * 2 + 3)]
    with Rewards(RunConfig(data=Data(tasks=tasks)), {"model": model}) as rewards:
        scoring = rewards.expect([g.prompt for g in groups])
        for position in reversed(range(CHUNK_PROMPTS, len(groups))):
            scoring.add(position, groups[position])
        assert model.begun.wait(LIMIT_S)  # though the first chunk is still to come
        for position in range(CHUNK_PROMPTS):
            scoring.add(position, groups[position])
        scored = scoring.result()
    assert [s.scores[0].reward for s in scored] == [float(i + 1) for i in range(len(groups))]
    assert [len(call) for call in model.calls] == [3, CHUNK_PROMPTS, CHUNK_PROMPTS]
    assert sorted(call[0] for call in model.calls) == sorted(
        groups[start].prompt.problem for start in (0, CHUNK_PROMPTS, 2 * CHUNK_PROMPTS)
    )
