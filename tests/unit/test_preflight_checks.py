"""Each check before a run: what it refuses, and that it says where and what to do."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rlstack.config.arithmetic import Arithmetic
from rlstack.config.load import dump_config, load_config
from rlstack.config.machine import Machine
from rlstack.config.own_code import OwnCode
from rlstack.config.schema import LogprobKernel, LogprobMode, Policy, Precision, Reward, RunConfig, Task
from rlstack.config.validate import machine_problems, missing_inputs, setting_problems
from rlstack.config.validate_logprobs import logprob_problems
from rlstack.config.validate_precision import policy_machine_problems
from rlstack.config.validate_rewards import missing_models
from rlstack.errors import ConfigError
from rlstack.files import try_lock
from rlstack.model.architecture import Architecture
from rlstack.preflight import outside, run_folder, user_code
from rlstack.preflight.planned import Planned

QUICKSTART = Path(__file__).parents[2] / "configs" / "quickstart.yaml"
RIGHT = "def right(problem, answer, responses): return [0.0 for _ in responses]\n"
ON_HOPPER = Arithmetic(compute_capability=(9, 0), cuda=(12, 9), transformer_engine=(2, 12))
MODULES = {
    "raising": ("import os\nprint('noise')\nx = nope\n", "raising.py:3: NameError: name 'nope'"),
    "unparsable": ("def f(:\n", "unparsable.py:1: SyntaxError"),
    "leaving": ("import sys\nsys.exit(3)\n", "leaving.py:2: SystemExit: 3"),
    "crashing": (
        "import ctypes\n\nctypes.string_at(0)\n",
        "crashing.py:3: its import ended the process",
    ),
    "gone": ("import os\nos._exit(4)\n", "its import ended the process with status 4"),
    "hanging": ("import time\n\nwhile True:\n    time.sleep(1)\n", "hanging.py:4: it was not imported"),
    "misused": ("def f(responses): return []\n", "it is called with (problem, answer, responses)"),
    "making": ("class f:\n    def __init__(self): self.words = {}['word']\n", "making.py:2: KeyError"),
}


def planned(config: RunConfig, **own: Any) -> Planned:
    return Planned(config=config, own=OwnCode(**own))


def with_rewards(*names: str, limit_s: float = 60.0) -> RunConfig:
    config = RunConfig(reward=Reward(plugin_start_timeout_s=limit_s))
    config.data.tasks = [Task(name=name, path="/rows", reward=name) for name in names]
    return config


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("good.py").write_text(RIGHT)
    for name, (text, _) in MODULES.items():
        Path(f"{name}.py").write_text(text)


def test_plug_ins_that_do_not_start_are_refused_with_their_file_and_line(modules: None) -> None:
    names = [f"{name}:f" for name in MODULES if name != "hanging"]
    found = [*user_code.rewards(planned(with_rewards("good:right", "nowhere:f", "good:wrong", *names)))]
    assert len(found) == len(names) + 2
    assert "data.tasks[1].reward = nowhere:f: ModuleNotFoundError: No module named 'nowhere'" in found[0]
    assert "AttributeError: module 'good' has no attribute 'wrong'" in found[1]
    for line, name in zip(found[2:], names, strict=True):
        assert MODULES[name.partition(":")[0]][1] in line
        assert "correct it, or name a function or class" in line


def test_a_plug_in_that_never_comes_back_is_ended_at_its_limit(modules: None) -> None:
    (line,) = user_code.rewards(planned(with_rewards("hanging:f", limit_s=3.0)))
    assert "hanging.py:4: it was not imported within 3 s" in line


def test_a_loss_is_imported_in_a_child_before_it_is_here(modules: None) -> None:
    config = RunConfig()
    config.objective.loss = "crashing:Loss"  # which would end this process
    (line,) = user_code.loss(planned(config))
    assert line.startswith("objective.loss = crashing:Loss: ")
    assert "crashing.py:3: its import ended the process with SIGSEGV" in line
    assert [*user_code.loss(planned(config, loss=object()))] == []


class Unready:
    def __init__(self) -> None:
        raise ValueError("no words")


def test_a_reward_that_is_given_is_made_in_a_child_too() -> None:
    config = with_rewards("__main__:given")
    (line,) = user_code.rewards(planned(config, rewards={"__main__:given": Unready}))
    assert "test_preflight_checks.py:" in line and "ValueError: no words; correct what is given" in line
    assert [*user_code.rewards(planned(config, rewards={"__main__:given": lambda p, a, r: []}))] == []


@pytest.mark.parametrize(
    "url", ["s3://bucket/a", "gs://b", "hdfs://host:9000/a", "http://host/a", "HTTPS://h/a"]
)
def test_urls_are_refused_by_name_wherever_a_path_is_meant(url: str, tmp_path: Path) -> None:
    overrides = [
        f"run.dir={url}",
        f"policy.model={url}",
        f"data.tasks[0].path={url}",
        f"schedule.adaptive.replay={url}",
        "schedule.sync_interval=auto",
    ]
    config = load_config(QUICKSTART, overrides)
    found = [*setting_problems(config), *missing_inputs(config)]
    with pytest.raises(ConfigError, match=r"policy\.model") as refused:
        Architecture.from_folder(Path(config.policy.model))
    found.append(str(refused.value))
    for setting in ("run.dir", "policy.model", "data.tasks[0].path", "schedule.adaptive.replay"):
        (line,) = [line for line in found if line.startswith(f"{setting} = {url}: ")]
        assert "a path is accepted, not a URL" in line


def test_a_file_url_is_refused_with_its_path() -> None:
    config = load_config(QUICKSTART, ["evaluation.tasks[0].path=file:///my%20data/x.jsonl"])
    (line,) = missing_inputs(config)
    assert line.endswith("a path is accepted, not a URL; give /my data/x.jsonl")
    overrides = ["reward.models=[{name: m, path: 's3://bucket/m'}]"]
    (line,) = missing_models(load_config(QUICKSTART, overrides))
    assert line.startswith("reward.models[0].path = s3://bucket/m: a path is accepted")


def test_a_kernel_that_the_machine_has_not_is_refused() -> None:
    config = RunConfig(policy=Policy(model="/model"))
    config.policy.logprob_kernel = type(config.policy.logprob_kernel).triton
    cpu = Machine(num_cores=2, num_gpus=0)
    assert "policy.logprob_kernel = triton: it needs an NVIDIA GPU" in machine_problems(config, cpu)[0]
    hopper = Arithmetic(compute_capability=(9, 0), cuda=(12, 9), transformer_engine=(2, 12), has_triton=False)
    (line,) = machine_problems(config, Machine(num_cores=2, num_gpus=1, arithmetic=hopper))
    assert "pip install triton" in line
    config.cluster.address = "auto"  # whose machines are others
    assert machine_problems(config, cpu) == []


@pytest.mark.parametrize(
    ("machine", "settings", "message"),
    [
        (Arithmetic(has_liger=False), {}, "its package is not installed; pip install '.[liger]'"),
        (replace(ON_HOPPER, has_cute=False), {}, "on Hopper it needs nvidia-cutlass-dsl"),
        (ON_HOPPER, {"precision": Precision.fp32}, "policy.precision = bf16 | fp8 is accepted"),
        (Arithmetic(has_cute=False), {"precision": Precision.fp32}, None),
        (ON_HOPPER, {}, None),
        (replace(ON_HOPPER, has_cute=False), {"tensor_parallel": 2, "precision": Precision.fp32}, None),
    ],
    ids=["not installed", "half installed", "fp32 on Hopper", "CPU", "Hopper", "several ranks"],
)
def test_liger_is_refused_on_machines_where_it_does_not_run(
    machine: Arithmetic, settings: dict[str, Any], message: str | None
) -> None:
    policy = Policy(**{"logprob_kernel": LogprobKernel.liger, "precision": Precision.bf16} | settings)
    found = list(policy_machine_problems(policy, machine))
    assert [message in line for line in found] == [True] * (message is not None)


@pytest.mark.parametrize(
    ("settings", "vocab_size", "message"),
    [
        ({}, 133, None),
        ({"logprob_mode": LogprobMode.recompute}, 133, None),
        ({"logprob_mode": LogprobMode.save}, 133, "auto | recompute is accepted"),
        ({"tensor_parallel": 2}, 128256, None),
        ({"tensor_parallel": 4}, 128256, "a multiple of 512, which needs no padding"),
        ({"tensor_parallel": 4, "logprob_kernel": LogprobKernel.triton}, 128256, None),
    ],
)
def test_liger_is_refused_where_it_cannot_compute(
    settings: dict[str, Any], vocab_size: int, message: str | None
) -> None:
    policy = Policy(**{"logprob_kernel": LogprobKernel.liger} | settings)
    found = list(logprob_problems(policy, SimpleNamespace(vocab_size=vocab_size)))
    assert [message in line for line in found] == [True] * (message is not None)


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_busy_ports_are_refused(taken: int) -> None:
    config = RunConfig()
    config.cluster.port_range = [taken, taken]
    (line,) = run_folder.ports(planned(config))
    assert f"{taken} of cluster.port_range = [{taken}, {taken}] in use" in line


def test_a_run_folder_that_cannot_be_had_is_refused(tmp_path: Path) -> None:
    config = RunConfig(policy=Policy(model="/model"))
    config.run.dir = str(tmp_path / "file" / "runs")
    (tmp_path / "file").touch()
    (line,) = run_folder.folder(planned(config))
    remedy = "give a folder to write to, or try again once it can be"
    assert line == f"run.dir = {tmp_path}/file/runs: {tmp_path}/file is a file; {remedy}"
    config.run.dir = str(tmp_path)
    assert [*run_folder.folder(planned(config))] == []
    (tmp_path / "run").mkdir()
    descriptor = try_lock(tmp_path / "run")
    assert descriptor is not None
    with pytest.raises(ConfigError, match="a run of this name is going on"):
        [*run_folder.folder(planned(config))]
    os.close(descriptor)
    assert [*run_folder.folder(planned(config))] == []


def test_a_run_that_cannot_go_on_with_these_settings_is_refused(tmp_path: Path) -> None:
    config = RunConfig(policy=Policy(model="/model"))
    config.run.dir = str(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(dump_config(config), encoding="utf-8")
    config.optimizer.lr *= 2
    assert [*run_folder.folder(planned(config))] == []  # it would be moved aside
    of_run = planned(config)
    of_run.resume = True
    with pytest.raises(ConfigError, match=r"^optimizer\.lr = 2e-06: 1e-06 is accepted with --resume"):
        [*run_folder.folder(of_run)]


def test_a_disk_without_room_for_the_model_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_run = planned(load_config(QUICKSTART, [f"run.dir={tmp_path}"]))
    assert [*run_folder.room(of_run)] == []
    monkeypatch.setattr(run_folder, "free_bytes", lambda place: 2**20)
    (line,) = run_folder.room(of_run)
    assert "1.0 MiB free" in line and "the model takes 2.6 MiB" in line


def test_a_cluster_or_a_server_that_is_not_there_is_refused() -> None:
    config = RunConfig()
    config.cluster.address = "127.0.0.1:9"
    (line,) = outside.cluster(planned(config))
    assert line.startswith("cluster.address = 127.0.0.1:9: the address of a running Ray cluster is accepted")
    pytest.importorskip("mlflow")
    config.telemetry.mlflow = "http://127.0.0.1:9"
    (line,) = outside.loggers(planned(config))
    assert line.startswith("telemetry.mlflow = http://127.0.0.1:9: Connect") and "sqlite:///FILE" in line


def test_a_login_that_is_missing_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    for name in ("WANDB_API_KEY", "WANDB_MODE", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    config = RunConfig()
    config.telemetry.wandb = "project"
    (line,) = outside.loggers(planned(config))
    assert line.startswith("telemetry.wandb = project: ") and "run `wandb login`" in line
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert [*outside.loggers(planned(config))] == []
