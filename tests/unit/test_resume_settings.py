"""Which settings a run may be taken up with."""

from dataclasses import asdict, replace
from fnmatch import fnmatchcase

import pytest

from rlstack.config.load import load_config
from rlstack.config.resume import MAY_DIFFER, resume_problems
from rlstack.config.schema import RewardModel, RunConfig, Task


def config(*overrides: str) -> RunConfig:
    return load_config(None, ["policy.model=/model", *overrides])


@pytest.mark.parametrize(
    "override",
    [
        "schedule.num_steps=7",
        "schedule.save_every=null",
        "run.name=renamed",
        "policy.tensor_parallel=2",
        "policy.data_parallel=2",
        "policy.context_parallel=2",
        "policy.virtual_pipeline=2",
        "policy.pipeline_layers=[1,3]",
        "policy.recompute=full",
        "policy.step_timeout_s=9",
        "rollout.generate_timeout_s=9",
        "rollout.overlap=false",
        "transfer.method=gather",
        "checkpoint.keep_last=5",
        "recovery.max_restarts=0",
        "cluster.address=10.0.0.1:6379",
        "alarms.divergence.action=stop",
    ],
)
def test_where_how_fast_and_how_long_may_change(override: str) -> None:
    assert config(override) != config()
    assert resume_problems(config(), config(override)) == []


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("run.seed=1", "run.seed = 1: 0 is accepted with --resume"),
        ("schedule.sync_interval=2", "schedule.sync_interval = 2: 1 is accepted"),
        ("schedule.evaluate_every=2", "schedule.evaluate_every = 2: null is accepted"),
        ("policy.model=/other", 'policy.model = "/other": "/model" is accepted'),
        ("policy.precision=bf16", 'policy.precision = "bf16": "fp32" is accepted'),
        ("optimizer.lr=1", "optimizer.lr = 1.0: 1e-06 is accepted"),
        ("rollout.n=4", "rollout.n = 4: 8 is accepted"),
        ("objective.name=grpo", 'objective.name = "grpo": "dpo" is accepted'),
        ("batch.prompts_per_step=3", "batch.prompts_per_step = 3: 16 is accepted"),
    ],
)
def test_what_is_sampled_or_trained_may_not(override: str, message: str) -> None:
    (problem,) = resume_problems(config(), config(override))
    assert problem.startswith(message)


def test_another_task_is_another_run_and_a_reward_models_actors_are_not() -> None:
    tasks = [Task(name="a", path="/a"), Task(name="b", path="/b")]
    one, two = config(), config()
    one.data.tasks, two.data.tasks = tasks[:1], tasks
    (name, path) = (p for p in resume_problems(one, two) if "name" in p.split("=")[0] or "path" in p)
    assert name.startswith('data.tasks[1].name = "b": not given is accepted')
    assert path.startswith('data.tasks[1].path = "/b": not given is accepted')
    assert 'data.tasks[1].name = not given: "b" is accepted' in "\n".join(resume_problems(two, one))
    one, two = config(), config()
    one.reward.models = [RewardModel(name="m", path="/m")]
    two.reward.models = [replace(one.reward.models[0], num_actors=2, timeout_s=3.0)]
    assert resume_problems(one, two) == []
    two.reward.models[0].max_tokens = 5
    (problem,) = resume_problems(one, two)
    assert problem.startswith("reward.models[0].max_tokens = 5: null is accepted")


def test_every_pattern_covers_a_setting_that_there_is() -> None:
    def paths(section: object, path: str) -> list[str]:
        if isinstance(section, dict):
            return [p for key, value in section.items() for p in paths(value, f"{path}.{key}".strip("."))]
        if isinstance(section, list):
            return [p for i, value in enumerate(section) for p in paths(value, f"{path}[{i}]")]
        return [path]

    full = config()
    full.reward.models = [RewardModel(name="m", path="/m")]
    settings = paths(asdict(full), "")
    assert [p for p in MAY_DIFFER if not any(fnmatchcase(setting, p) for setting in settings)] == []
