from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlstack.config.arithmetic import Arithmetic
from rlstack.config.load import load_config
from rlstack.config.machine import Machine
from rlstack.config.schema import RunConfig, Task
from rlstack.config.validate import missing_inputs, problems, validate
from rlstack.errors import ConfigError

ROOT = Path(__file__).parents[2]
TWO_CORES = Machine(num_cores=2, num_gpus=0)
MANY_CORES = Machine(num_cores=1000, num_gpus=0)
HOPPER = Arithmetic(compute_capability=(9, 0), cuda=(13, 0), transformer_engine=(2, 14))
EIGHT_GPUS = Machine(num_cores=64, num_gpus=8, arithmetic=HOPPER)


@dataclass(frozen=True)
class Shape:
    num_layers: int = 4
    hidden_size: int = 128
    head_dim: int = 32
    num_heads: int = 4
    num_kv_heads: int = 2
    ffn_size: int = 256
    context_length: int = 192


def quickstart(*overrides: str) -> RunConfig:
    return load_config(ROOT / "configs" / "quickstart.yaml", overrides)


def found(*overrides: str, machine: Machine = TWO_CORES, shape: Shape | None = None) -> list[str]:
    return problems(quickstart(*overrides), architecture=shape or Shape(), machine=machine)


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.name)
def test_every_published_configuration_fits_two_cores(path: Path) -> None:
    assert problems(load_config(path), architecture=Shape(), machine=TWO_CORES) == []


@pytest.mark.parametrize(
    "overrides",
    [
        ["schedule.sync_interval=1"],
        ["schedule.sync_interval=null"],
        ["schedule.sync_interval=1", "schedule.lag=1"],
        ["schedule.sync_interval=auto", "schedule.lag=1", "schedule.evaluate_every=7"],
        ["schedule.reference_sync=never"],
        ["schedule.evaluate_every=20"],
        ["schedule.save_every=null", "checkpoint.keep_best=0", "recovery.max_restarts=0"],
        ["evaluation.n=1", "evaluation.temperature=0"],
        ["objective.name=grpo", "objective.kl_scale=0.001"],
        ["policy.tensor_parallel=2", "policy.pipeline_parallel=2", "rollout.tensor_parallel=2"],
        ["policy.tensor_parallel=2", "policy.sequence_parallel=true"],
        ["evaluation.tasks=[]", "evaluation.temperature=0"],
    ],
)
def test_what_can_work_is_accepted(overrides: list[str]) -> None:
    assert found(*overrides) == []


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("schedule.sync_interval=0", "schedule.sync_interval = 0: at least 1 is accepted; 1 is online"),
        ("schedule.sync_interval=x", "schedule.sync_interval = x: auto | a number of steps from 1 | null is"),
        ("schedule.adaptive.start=101", "schedule.adaptive.start = 101: from schedule.adaptive.min = 1 to"),
        ("schedule.adaptive.min=11", "schedule.adaptive.start = 10: from schedule.adaptive.min = 11 to"),
        ("schedule.adaptive.max_drift=0", "schedule.adaptive.max_drift = 0.0: more than 0 is accepted"),
        (
            "schedule.adaptive.max_sync_share=1",
            "schedule.adaptive.max_sync_share = 1.0: more than 0 and less",
        ),
        ("schedule.adaptive.replay=x", "null is accepted with schedule.sync_interval = 10; set that to auto"),
        ("schedule.num_steps=0", "schedule.num_steps = 0: at least 1 is accepted"),
        ("schedule.lag=-1", "schedule.lag = -1: at least 0 is accepted"),
        ("schedule.reference_sync=0", "schedule.reference_sync = 0: never | with_generator | a number of"),
        ("schedule.reference_sync=always", "schedule.reference_sync = always: never | with_generator |"),
        ("schedule.lag=17", "schedule.lag = 17: at most rollout.max_steps_ahead = 16 is accepted"),
        ("schedule.evaluate_every=15", "schedule.evaluate_every = 15: a multiple of schedule.sync_interval"),
        ("schedule.save_every=0", "schedule.save_every = 0: at least 1 is accepted; null saves nothing"),
        ("checkpoint.keep_last=0", "checkpoint.keep_last = 0: at least 1 is accepted"),
        ("checkpoint.timeout_s=0", "checkpoint.timeout_s = 0.0: more than 0 is accepted"),
        ("recovery.max_restarts=-1", "recovery.max_restarts = -1: at least 0 is accepted"),
        ("recovery.window_s=0", "recovery.window_s = 0.0: more than 0 is accepted"),
        ("optimizer.max_skipped_steps=0", "optimizer.max_skipped_steps = 0: at least 1 is accepted"),
        ("evaluation.temperature=0", "evaluation.n = 4: 1 is accepted when evaluation.temperature is 0"),
        ("rollout.n=1", "rollout.n = 1: at least 2 is accepted; a pair needs two rollouts"),
        ("rollout.temperature=0", "rollout.temperature = 0.0: at least 0.01 is accepted"),
        ("rollout.top_p=1.1", "rollout.top_p = 1.1: more than 0 and at most 1 is accepted"),
        ("rollout.top_p=0", "rollout.top_p = 0.0: more than 0 and at most 1 is accepted"),
        ("optimizer.lr=0", "optimizer.lr = 0.0: more than 0 is accepted"),
        ("optimizer.lr=.nan", "optimizer.lr = nan: more than 0 is accepted"),
        ("optimizer.lr=.inf", "optimizer.lr = inf: more than 0 is accepted"),
        ("optimizer.adam_beta2=1", "optimizer.adam_beta2 = 1.0: at least 0 and less than 1 is accepted"),
        ("policy.step_timeout_s=0", "policy.step_timeout_s = 0.0: more than 0 is accepted"),
        ("run.name=../x", "run.name = '../x': the name of one folder is accepted"),
        ("run.name=..", "run.name = '..': the name of one folder"),
        ("run.name=''", "run.name = '': the name of one folder"),
        ("data.tasks=[]", "data.tasks is empty"),
        ("data.tasks=[{name: a, path: x}, {name: a, path: y}]", "data.tasks: 2 tasks are called 'a'"),
        ("data.tasks[0].name=''", "data.tasks[0].name is empty"),
        ("data.tasks[0].weight=0", "data.tasks[0].weight = 0.0: more than 0 is accepted"),
        ("evaluation.tasks[0].reward=exact", "evaluation.tasks[0].reward = exact: math | the name of one of"),
        ("objective.kl_scale=0.1", "objective.kl_scale = 0.1: dpo has no such term"),
        ("policy.pipeline_parallel=3", "policy.pipeline_parallel = 3: does not divide the model's 4 layers"),
        ("policy.sequence_parallel=true", "policy.sequence_parallel = true: it splits sequences over"),
        ("rollout.tensor_parallel=4", "rollout.tensor_parallel = 4: at most 2 is accepted, for vLLM binds"),
        ("rollout.max_new_tokens=192", "rollout.max_new_tokens = 192: less than the model's context of 192"),
        ("policy.data_parallel=4", "= 8 ranks and rollout.engines x tensor_parallel = 1 ranks: at most 8"),
        ("policy.precision=fp8", "policy.precision = fp8: it needs an NVIDIA GPU, and there is none"),
    ],
)
def test_what_cannot_work_is_refused_once_with_its_path(override: str, message: str) -> None:
    (only,) = found(override)
    assert message in only


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("policy.tensor_parallel=4", "policy.tensor_parallel = 4: does not divide the model's 2 key-value"),
        ("rollout.tensor_parallel=3", "rollout.tensor_parallel = 3: does not divide the model's 4 attention"),
    ],
)
def test_a_layout_that_does_not_divide_the_model_is_refused(override: str, message: str) -> None:
    (only,) = found(override, machine=MANY_CORES)
    assert message in only
    assert "try 1 or 2" in only


def test_a_log_to_replay_that_is_not_there_is_refused() -> None:
    config = quickstart("schedule.sync_interval=auto", "schedule.adaptive.replay=nowhere.jsonl")
    (only,) = missing_inputs(config)
    assert only.startswith("schedule.adaptive.replay = ") and "nowhere.jsonl: there is no such file" in only


def test_an_offline_run_has_no_lag() -> None:
    (only,) = found("schedule.sync_interval=null", "schedule.lag=1")
    assert "schedule.lag = 1: 0 is accepted when schedule.sync_interval is null" in only


def test_a_gpu_machine_needs_a_gpu_for_each_rank() -> None:
    layout = ("policy.tensor_parallel=2", "policy.data_parallel=2")
    assert found(*layout, "policy.precision=bf16", "rollout.engines=0", machine=EIGHT_GPUS) != []
    (only,) = found(*layout, machine=EIGHT_GPUS)
    assert "8 ranks and rollout.engines x tensor_parallel = 1 ranks: one GPU each is needed" in only
    assert found("policy.precision=bf16", machine=EIGHT_GPUS) == []


def test_a_cluster_that_is_joined_may_be_larger_than_this_machine() -> None:
    assert found("policy.data_parallel=64", "cluster.address=host:6379") == []


def test_shared_memory_is_for_the_reshard_of_one_host() -> None:
    assert found("transfer.channel=ipc") == []
    assert found("transfer.channel=network", "transfer.method=gather", "cluster.address=host:6379") == []
    (only,) = found("transfer.channel=ipc", "cluster.address=host:6379")
    assert "transfer.channel = ipc: auto | network is accepted with cluster.address = host:6379" in only
    (only,) = found("transfer.channel=ipc", "transfer.method=gather")
    assert "transfer.channel = ipc: auto | network is accepted with transfer.method = gather" in only


def test_an_engine_may_have_more_ranks_than_key_value_heads() -> None:
    assert found("rollout.tensor_parallel=4", machine=MANY_CORES) == []
    (only,) = found(
        "rollout.tensor_parallel=4", machine=MANY_CORES, shape=Shape(num_kv_heads=6, num_heads=12)
    )
    assert "does not divide the model's 6 key-value heads" in only


def test_all_problems_and_missing_files_come_in_one_error() -> None:
    config = quickstart("rollout.n=1", "optimizer.lr=0", "data.tasks[0].path=nowhere.jsonl")
    with pytest.raises(ConfigError) as error:
        validate(config, architecture=Shape(), machine=TWO_CORES)
    text = str(error.value)
    assert "rollout.n = 1" in text
    assert "optimizer.lr = 0.0" in text
    assert "nowhere.jsonl: there is no such file" in text


@given(
    policy_size=st.integers(1, 9),
    stages=st.integers(1, 9),
    engine_size=st.integers(1, 9),
    heads=st.integers(1, 4),
    heads_per_group=st.integers(1, 4),
)
def test_an_accepted_layout_divides_the_model(
    policy_size: int, stages: int, engine_size: int, heads: int, heads_per_group: int
) -> None:
    shape = Shape(num_kv_heads=heads, num_heads=heads * heads_per_group)
    config = RunConfig()
    config.policy.tensor_parallel, config.policy.pipeline_parallel = policy_size, stages
    config.rollout.tensor_parallel, config.rollout.max_new_tokens = engine_size, 56
    config.data.tasks = [Task(name="a", path="a.jsonl")]
    fits = (
        shape.num_heads % policy_size == shape.num_kv_heads % policy_size == shape.ffn_size % policy_size == 0
        and shape.num_layers % stages == 0
        and shape.num_heads % engine_size == shape.ffn_size % engine_size == 0
        and (shape.num_kv_heads % engine_size == 0 or engine_size % shape.num_kv_heads == 0)
    )
    assert (problems(config, architecture=shape, machine=MANY_CORES) == []) == fits
