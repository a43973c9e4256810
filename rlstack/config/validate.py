"""What is refused before any process starts: values out of range and combinations that cannot work.

Pure but for `missing_inputs`: the model's shape and the machine are passed in, nothing heavy is imported.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from functools import reduce
from pathlib import Path
from typing import Any, Protocol

from rlstack.config.deterministic import deterministic_machine_problems, deterministic_problems
from rlstack.config.divisors import indivisible
from rlstack.config.loggers import logger_problems, missing_packages
from rlstack.config.machine import Machine
from rlstack.config.mistakes import refuse_wrong_types
from rlstack.config.objective import cut_off_problems, objective_problems
from rlstack.config.parallel import num_policy_ranks
from rlstack.config.profiling import profile_problems, rollouts_problems
from rlstack.config.ranges import COLDEST, RANGES, REMEDIES
from rlstack.config.remote_code import remote_code
from rlstack.config.schema import Placement, RunConfig
from rlstack.config.surroundings import surroundings_problems
from rlstack.config.tasks import task_sections, tasks_by_setting
from rlstack.config.validate_logprobs import logprob_problems
from rlstack.config.validate_parallel import parallel_problems
from rlstack.config.validate_placement import placement_problems
from rlstack.config.validate_precision import (
    LayerShape,
    engine_machine_problems,
    policy_machine_problems,
    precision_problems,
    rollout_problems,
)
from rlstack.config.validate_rewards import missing_models, num_reward_ranks, reward_problems
from rlstack.config.validate_schedule import schedule_problems
from rlstack.errors import ConfigError
from rlstack.urls import is_url, refusal

MAX_NAME_BYTES = 200  # file systems take 255, of which a run that is moved aside, or its log, needs some

# vllm/v1/attention/backends/cpu_attn.py, get_supported_head_sizes
CPU_HEAD_DIMS = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)


class ModelShape(LayerShape, Protocol):
    """The properties that a layout depends on; `rlstack.model.architecture.Architecture` has it."""

    @property
    def context_length(self) -> int: ...
    @property
    def vocab_size(self) -> int: ...


def validate(config: RunConfig, *, architecture: ModelShape, machine: Machine) -> None:
    """Raise one ConfigError that lists everything found, one line each."""
    refuse_wrong_types(config)
    found = [
        *missing_inputs(config),
        *missing_packages(config.telemetry),
        *surroundings_problems(config),
    ]
    if found := [*found, *problems(config, architecture=architecture, machine=machine)]:
        raise ConfigError("\n".join(found))


def missing_inputs(config: RunConfig) -> list[str]:
    """The files and folders that settings name, and the reward models, that are not there."""
    tasks = [
        refusal(f"{key}.path", task.path)
        if is_url(task.path)
        else f"{key}.path = {task.path}: there is no such file; give the path of a JSONL or Parquet file, or "
        "the folder of a dataset"
        for key, task in tasks_by_setting(config).items()
        if not os.path.exists(task.path)
    ]
    replay = config.schedule.adaptive.replay
    if replay is not None and is_url(replay):
        tasks.append(refusal("schedule.adaptive.replay", replay))
    elif replay is not None and not os.path.isfile(replay):
        tasks.append(
            f"schedule.adaptive.replay = {replay}: there is no such file; give the intervals.jsonl of a run"
        )
    return [*tasks, *remote_code("policy.model", Path(config.policy.model)), *missing_models(config)]


def validate_evaluation(config: RunConfig, *, architecture: ModelShape, machine: Machine) -> None:
    """As `validate`, for engines without a policy: nothing is trained."""
    refuse_wrong_types(config)
    found = [
        *missing_inputs(config),
        *surroundings_problems(config),
        *_out_of_range(config),
        *_evaluation(config),
        *_task_problems(config),
        *placement_problems(config),
        *deterministic_problems(config),
    ]
    if not found:
        found += [*_rollout_layout(config, architecture), *rollout_problems(config, architecture)]
        if config.cluster.address is None:
            found += _on_machine(config, architecture, machine, num_ranks=0)
            found += engine_machine_problems(config, machine.arithmetic)
            found += deterministic_machine_problems(config, machine.arithmetic)
    if found:
        raise ConfigError("\n".join(found))


def validate_rewards(config: RunConfig) -> None:
    """As `validate`, for rewards alone: nothing is sampled."""
    refuse_wrong_types(config)
    found = [*_out_of_range(config), *reward_problems(config), *missing_models(config)]
    if found := [*found, *placement_problems(config)]:
        raise ConfigError("\n".join(found))


def problems(config: RunConfig, *, architecture: ModelShape, machine: Machine) -> list[str]:
    """Every setting, or combination of settings, that cannot work: path, value, what is accepted, remedy.

    The machine does not count when the run joins a Ray cluster (`cluster.address`), which may be larger.
    """
    if found := setting_problems(config):
        return found
    layout = layout_problems(config, architecture=architecture, machine=machine)
    return [*layout, *machine_problems(config, machine)]


def setting_problems(config: RunConfig) -> list[str]:
    """As `problems`, of the settings alone: neither the model nor the machine counts."""
    return [
        *_out_of_range(config),
        *_run(config),
        *schedule_problems(config),
        *objective_problems(config.objective),
        *cut_off_problems(config),
        *_evaluation(config),
        *placement_problems(config),
        *logger_problems(config.telemetry),
        *profile_problems(config),
        *rollouts_problems(config.telemetry),
        *_training_tasks(config),
        *_task_problems(config),
        *deterministic_problems(config),
    ]


def layout_problems(config: RunConfig, *, architecture: ModelShape, machine: Machine) -> list[str]:
    """As `problems`, where `setting_problems` are none: a layout with 0 ranks has no sensible message."""
    local = machine if config.cluster.address is None else None
    found = [
        *parallel_problems(config.policy, architecture, local),
        *_rollout_layout(config, architecture),
        *precision_problems(config, architecture),
        *logprob_problems(config.policy, architecture),
    ]
    if config.cluster.address is None:
        found += _on_machine(config, architecture, machine, num_ranks=num_policy_ranks(config.policy))
    return found


def machine_problems(config: RunConfig, machine: Machine) -> list[str]:
    """Precisions and kernels that `machine` has not; of a cluster's machines nothing is known here."""
    if config.cluster.address is not None:
        return []
    return [
        *policy_machine_problems(config.policy, machine.arithmetic),
        *engine_machine_problems(config, machine.arithmetic),
        *deterministic_machine_problems(config, machine.arithmetic),
    ]


def _out_of_range(config: RunConfig) -> Iterator[str]:
    for key, accepted in RANGES.items():
        value: Any = reduce(getattr, key.split("."), config)
        if value is not None and not isinstance(value, str) and value not in accepted:
            remedy = f"; {REMEDIES[key]}" if key in REMEDIES else ""
            yield f"{key} = {value}: {accepted} is accepted{remedy}"


def _run(config: RunConfig) -> Iterator[str]:
    name = config.run.name
    if name in ("", ".", "..") or "/" in name or not name.isprintable():
        yield f"run.name = {name!r}: the name of one folder is accepted; put the folders above it in run.dir"
    elif len(name.encode()) > MAX_NAME_BYTES:
        yield (
            f"run.name = {name[:20]!r}...: at most {MAX_NAME_BYTES} bytes are accepted, and this has "
            f"{len(name.encode())}; shorten it"
        )
    if is_url(config.run.dir):
        yield refusal("run.dir", config.run.dir)
    if not config.run.dir.isprintable():
        yield f"run.dir = {config.run.dir!r}: a path without control characters is accepted; rename it"


def _evaluation(config: RunConfig) -> Iterator[str]:
    evaluation = config.evaluation
    if evaluation.tasks and evaluation.temperature < COLDEST and evaluation.n > 1:
        yield (
            f"evaluation.n = {evaluation.n}: 1 is accepted when evaluation.temperature is 0, for greedy "
            "answers are all alike; set it to 1 (rlstack evaluate: --n 1), or a higher temperature"
        )


def _training_tasks(config: RunConfig) -> Iterator[str]:
    if not config.data.tasks:
        yield "data.tasks is empty: at least one task is needed; add one with a name and a path"


def _task_problems(config: RunConfig) -> Iterator[str]:
    for section, tasks in task_sections(config).items():
        for name, count in Counter(task.name for task in tasks).items():
            if count > 1:
                yield f"{section}.tasks: {count} tasks are called {name!r}; give each a name of its own"
    for key, task in tasks_by_setting(config).items():
        if not task.name:
            yield f"{key}.name is empty; give the task a name, which its samples carry"
        elif not task.name.isprintable():
            yield f"{key}.name = {task.name!r}: a name without control characters is accepted; rename it"
        if not 0 < task.weight < float("inf"):
            yield f"{key}.weight = {task.weight}: more than 0 is accepted; leave the task out to skip it"
    yield from reward_problems(config)


def _rollout_layout(config: RunConfig, architecture: ModelShape) -> Iterator[str]:
    # vLLM copies key-value heads onto several ranks when there are fewer heads than ranks, and pads the
    # vocabulary; mirrors vllm/model_executor/models/llama.py, LlamaAttention.
    tensor_parallel, num_kv_heads = config.rollout.tensor_parallel, architecture.num_kv_heads
    counts = {"attention heads": architecture.num_heads, "feed-forward columns": architecture.ffn_size}
    if num_kv_heads % tensor_parallel and tensor_parallel % num_kv_heads:
        counts["key-value heads"] = num_kv_heads
    yield from indivisible("rollout.tensor_parallel", tensor_parallel, counts)
    if config.rollout.max_new_tokens >= architecture.context_length:
        yield (
            f"rollout.max_new_tokens = {config.rollout.max_new_tokens}: less than the model's context of "
            f"{architecture.context_length} tokens is accepted, for the prompt needs room too; lower it"
        )


def _on_machine(
    config: RunConfig, architecture: ModelShape, machine: Machine, *, num_ranks: int
) -> Iterator[str]:
    rollout = config.rollout
    num_engine_ranks = rollout.engines * rollout.tensor_parallel
    asked = f"rollout.engines x tensor_parallel = {num_engine_ranks} ranks"
    if num_rewards := num_reward_ranks(config):
        asked += f" and reward.models' num_actors x tensor_parallel = {num_rewards} ranks"
    if num_ranks > 0:
        axes = "tensor_parallel x pipeline_parallel x context_parallel x data_parallel"
        asked = f"policy.{axes} = {num_ranks} ranks and {asked}"
    if machine.num_gpus > 0:
        shared = num_ranks > 0 and config.cluster.placement is Placement.colocated
        num_taken = max(num_ranks, num_engine_ranks) if shared else num_ranks + num_engine_ranks
        if num_taken + num_rewards > machine.num_gpus:
            yield (
                f"{asked}: one GPU each is needed, and this machine has {machine.num_gpus}; lower one of "
                "them, give a larger cluster as cluster.address, or set cluster.placement=colocated"
            )
        return
    if architecture.head_dim not in CPU_HEAD_DIMS:
        sizes = " | ".join(map(str, CPU_HEAD_DIMS))
        yield (
            f"policy.model = {config.policy.model}: its head_dim is {architecture.head_dim}, and vLLM "
            f"computes with {sizes} on a CPU; use another model, or a machine with a GPU"
        )
    most = config.cluster.ranks_per_core * machine.num_cores
    if num_ranks + num_engine_ranks + num_rewards > most:
        yield (
            f"{asked}: at most {most} together are accepted on {machine.num_cores} cores; lower one of them, "
            f"or raise cluster.ranks_per_core (now {config.cluster.ranks_per_core})"
        )
    if rollout.tensor_parallel > machine.num_cores:
        yield (
            f"rollout.tensor_parallel = {rollout.tensor_parallel}: at most {machine.num_cores} is accepted, "
            "for vLLM binds each of its ranks to a core of its own; lower it"
        )
