from __future__ import annotations

import os
from pathlib import Path

import pytest

from rlstack.config.load import load_config
from rlstack.config.reward_names import (
    RewardKind,
    kind_of,
    needs_answer,
    plugin_workers,
    used_models,
    verifier_workers,
)
from rlstack.config.schema import Evaluation, RewardEngine, RewardModel, RunConfig, Task
from rlstack.config.schema import Reward as RewardSettings
from rlstack.config.validate_rewards import missing_models, num_reward_ranks, reward_problems

TINY = Path(__file__).parents[2] / "configs" / "tiny"


def config_with(reward: str, *models: RewardModel) -> RunConfig:
    config = RunConfig(reward=RewardSettings(models=list(models)))
    config.data.tasks = [Task(name="a", path="a.jsonl", reward=reward)]
    return config


def judge(**settings: object) -> RewardModel:
    return RewardModel(**{"name": "judge", "path": str(TINY / "reward_model")} | settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("reward", ["math", "judge", "my_rewards:brevity", "a.b:C.score"])
def test_rewards_that_are_defined_are_accepted(reward: str) -> None:
    assert reward_problems(config_with(reward, judge())) == []


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (config_with("exact"), "data.tasks[0].reward = exact: math | the name of one of reward.models |"),
        (config_with("exact", judge()), "is accepted, and reward.models has judge"),
        (config_with("my rewards:brevity"), "data.tasks[0].reward = my rewards:brevity: math |"),
        (config_with(":brevity"), "name a plug-in like my_rewards:brevity"),
        *(
            (config_with(name), f"data.tasks[0].reward = {name}: math | ")
            for name in (
                "timeit:timeit",
                "os:system",
                "os.path:join",
                "builtins:eval",
                "posix:system",
                "_io:open",
            )
        ),
        (config_with("math", judge(name="math")), "reward.models[0].name = 'math': letters, digits"),
        (config_with("math", judge(name="a:b")), "reward.models[0].name = 'a:b': letters, digits"),
        (config_with("math", judge(), judge()), "reward.models: 2 models are called 'judge'"),
        (config_with("math", judge(num_actors=0)), "reward.models[0].num_actors = 0: at least 1 is accepted"),
        (
            config_with("math", judge(gpu_memory_fraction=1.5)),
            "gpu_memory_fraction = 1.5: more than 0 and less",
        ),
        (config_with("math", judge(timeout_s=0.0)), "reward.models[0].timeout_s = 0.0: more than 0"),
        (
            config_with("math", judge(engine=RewardEngine.transformers, tensor_parallel=2)),
            "reward.models[0].tensor_parallel = 2: 1 is accepted with engine = transformers",
        ),
    ],
)
def test_what_cannot_work_is_refused_with_its_path(config: RunConfig, message: str) -> None:
    (only,) = reward_problems(config)
    assert message in only


def test_a_task_has_one_reward_in_training_and_in_evaluation() -> None:
    config = config_with("judge", judge())
    config.evaluation = Evaluation(tasks=[Task(name="a", path="b.jsonl", reward="math")])
    (only,) = reward_problems(config)
    assert "evaluation.tasks[0].reward = math: judge is accepted, the reward of the task 'a'" in only
    config.evaluation.tasks[0].name = "b"
    assert reward_problems(config) == []


def test_a_models_folder_and_context_are_checked(tmp_path: Path) -> None:
    assert list(missing_models(config_with("judge", judge(max_tokens=192)))) == []
    (only,) = missing_models(config_with("judge", judge(max_tokens=193)))
    assert "reward.models[0].max_tokens = 193: at most the model's context of 192 tokens" in only
    (only,) = missing_models(config_with("judge", judge(path=str(tmp_path))))
    assert f"reward.models[0].path = {tmp_path}: its config.json cannot be used" in only


def test_only_the_models_that_a_task_names_take_ranks() -> None:
    config = config_with("judge", judge(num_actors=3, tensor_parallel=2), judge(name="other"))
    assert [model.name for model in used_models(config)] == ["judge"]
    assert num_reward_ranks(config) == 6


def test_a_models_path_is_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(
        "reward: {models: [{name: judge, path: models/judge}]}\npolicy: {model: m}"
    )
    config = load_config(tmp_path / "run.yaml")
    assert config.reward.models[0].path == str(tmp_path / "models" / "judge")


def test_kinds_are_told_by_the_form_of_the_name() -> None:
    kinds = {"math": RewardKind.math, "athene": RewardKind.model, "m:f": RewardKind.plugin}
    assert {name: kind_of(name) for name in kinds} == kinds
    assert [needs_answer(name) for name in kinds] == [True, False, False]


def test_workers_are_a_number_or_the_cores_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(7)))
    assert (verifier_workers(RewardSettings()), plugin_workers(RewardSettings())) == (7, 1)
    assert (verifier_workers(RewardSettings(workers=3)), plugin_workers(RewardSettings(workers=3))) == (3, 3)
    assert reward_problems(RunConfig(reward=RewardSettings(workers="many"))) == [
        "reward.workers = many: auto | a number of processes from 1 is accepted"
    ]
