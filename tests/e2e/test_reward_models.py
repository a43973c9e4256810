"""Reward models in their own processes, on both engines, and `rlstack score` with one."""

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rlstack.config.schema import Data, Recovery, RewardEngine, RunConfig, Task
from rlstack.config.schema import Reward as RewardSettings
from rlstack.config.schema import RewardModel as Settings
from rlstack.rewards.scorer import Question

ROOT = Path(__file__).resolve().parents[2]
JUDGE = ROOT / "configs" / "tiny" / "reward_model"
NOTES = ("Dear Ann, thank you for the book.", "I hated it.", "Dear Ann, I loved the book. " * 6, "")
QUESTIONS = [
    Question(problem=f"Write a note to {name} about the book.", answer=None, responses=NOTES[i % 2 :])
    for i, name in enumerate(("Ann", "Bob", "Eve", "Ned", "Amy"))
]

pytestmark = pytest.mark.slow


def scores_of(engine, max_tokens):
    from rlstack.rewards.reward_model import RewardModel

    settings = Settings(name="judge", path=str(JUDGE), engine=engine, max_tokens=max_tokens)
    model = RewardModel(settings)
    assert model.score([]) == []  # what is left for an actor when there are more of them than questions
    return model.score(QUESTIONS)


@pytest.mark.parametrize("max_tokens", [pytest.param(None, marks=pytest.mark.thorough), 40])
def test_vllm_gives_the_scores_of_transformers(own_process, max_tokens):
    of_vllm, plain = (
        own_process.submit(scores_of, e, max_tokens).result()
        for e in (RewardEngine.vllm, RewardEngine.transformers)
    )
    flat, expected = ([s for of_question in scores for s in of_question] for scores in (of_vllm, plain))
    assert [s.reward for s in flat] == pytest.approx([s.reward for s in expected], abs=1e-5)
    assert [s.truncated for s in flat] == [s.truncated for s in expected]
    assert any(s.truncated for s in flat) == (max_tokens == 40)


def test_the_answers_are_dealt_to_all_actors_and_come_back_in_order(tmp_path):
    from rlstack.orchestration.cluster import Cluster
    from rlstack.orchestration.roles import RoleError

    model = Settings(name="judge", path=str(JUDGE), num_actors=2)
    restarts = []
    config = RunConfig(
        recovery=Recovery(max_restarts=2),
        reward=RewardSettings(models=[Settings(name="unused", path="nowhere"), model]),
        data=Data(tasks=[Task(name="notes", path="", reward="judge")]),
    )
    with Cluster(config, tmp_path, note=restarts.append, policy=False, engines=False) as cluster:
        models = cluster.start_reward_models()
        cluster.wait_for_reward_models()
        assert list(models) == ["judge"]
        together = models["judge"].score(QUESTIONS)
        for question, scores in zip(QUESTIONS, together, strict=True):
            ((*alone,),) = models["judge"].score([question])
            assert [s.reward for s in scores] == pytest.approx([s.reward for s in alone], abs=2e-6)
        for how, limit_s in ((signal.SIGKILL, 60.0), (signal.SIGSTOP, 5.0)):  # the copy is replaced
            os.kill(models["judge"].roles[1].pid(), how)
            model.timeout_s = limit_s
            assert models["judge"].score(QUESTIONS) == together
        assert [row["role"] for row in restarts] == ["reward model judge 1"] * 2
        model.timeout_s = 1e-9
        with pytest.raises(
            RoleError, match=r"no answer from reward model judge 0.*reward\.models\[1\]\.timeout_s"
        ):
            models["judge"].score(QUESTIONS)
    assert {path.name for path in tmp_path.iterdir()} == {
        "ray.log",
        "reward-judge-0.log",
        "reward-judge-1.log",
    }


def test_a_file_is_scored_with_the_folder_of_a_reward_model(tmp_path):
    rows = [{"problem": q.problem, "responses": list(q.responses)} for q in QUESTIONS]
    (tmp_path / "answers.jsonl").write_text("\n".join(map(json.dumps, rows)))
    rlstack = Path(sys.executable).with_name("rlstack")
    command = [rlstack, "score", "answers.jsonl", "--reward", JUDGE, "--out", "out.jsonl"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    scored = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [len(row["rewards"]) for row in scored] == [len(q.responses) for q in QUESTIONS]
    assert all(math.isfinite(reward) for row in scored for reward in row["rewards"])
    assert scored[0]["rewards"][0] > scored[0]["rewards"][1]  # thanks against rudeness
    assert {path.name for path in tmp_path.iterdir()} == {
        "answers.jsonl",
        "out.jsonl",
        "out.jsonl.settings.json",
    }
