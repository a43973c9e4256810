"""Loggers take what a run reports, and neither slow nor end it, whatever becomes of them."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from rlstack.config.loggers import logger_problems, missing_packages, wanted
from rlstack.config.schema import RunConfig, Telemetry
from rlstack.errors import ConfigError
from rlstack.telemetry.loggers import loggers, remote
from rlstack.telemetry.loggers.backend import numbers, single_values
from rlstack.telemetry.recorder import Recorder
from tests.played_logger import calls

ROOT = Path(__file__).parents[2]
DRIVER = """
import os, signal, sys, time
from pathlib import Path
from rlstack.config.schema import Policy, RunConfig, Telemetry
from rlstack.telemetry.loggers import remote
from rlstack.telemetry.loggers.loggers import Loggers

remote.WORKER = "tests.played_logger"
folder, does = Path(sys.argv[1]), sys.argv[2]
(folder / "logs").mkdir()
config = RunConfig(policy=Policy(model="/model"), telemetry=Telemetry(wandb=does))
loggers = Loggers.open(config, folder, note=print)
[logger] = loggers._remotes
for step in (1, 2):
    loggers.step({"step": step, "reward/mean": 0.5})
while not logger._requests.empty():
    time.sleep(0.01)
time.sleep(0.3)  # from the queue into the pipe
print(logger._process.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    """Of a run whose loggers are played ones."""
    monkeypatch.setattr(remote, "WORKER", "tests.played_logger")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    config = RunConfig()
    config.run.dir, config.run.name, config.policy.model = str(tmp_path), "a", "/model"
    return config


def steps(recorder: Recorder, first: int, last: int) -> None:
    for number in range(first, last + 1):
        recorder.step(number, {"reward/mean": number / 10})


def written(folder: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def children() -> list[psutil.Process]:
    return [
        each for each in psutil.Process().children(recursive=True) if "played_logger" in str(each.cmdline())
    ]


def runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_numbers_are_what_can_be_drawn() -> None:
    row = {"step": 3, "a": 1, "b": True, "c": math.nan, "d": None, "e": "text", "f": -0.5, "g": math.inf}
    assert numbers(row) == {"a": 1.0, "b": 1.0, "f": -0.5}


def test_single_values_are_those_under_a_path() -> None:
    summary = {"steps": 2, "best": {"version": 1}, "alarms": [], "mfu": None, "word": "w"}
    assert dict(single_values(summary)) == {
        "summary/steps": 2,
        "summary/best/version": 1,
        "summary/word": "w",
    }


def test_those_that_are_off_are_not_wanted() -> None:
    assert wanted(Telemetry()) == {}
    assert wanted(Telemetry(tensorboard=True, wandb="p", mlflow="http://h:1")) == {
        "tensorboard": True,
        "wandb": "p",
        "mlflow": "http://h:1",
    }


@pytest.mark.parametrize(
    ("telemetry", "message"),
    [
        (Telemetry(wandb="a/b/c"), "telemetry.wandb = a/b/c: PROJECT | ENTITY/PROJECT is accepted"),
        (Telemetry(wandb=""), "telemetry.wandb = : PROJECT | ENTITY/PROJECT"),
        (Telemetry(wandb="True"), "telemetry.wandb = True: PROJECT"),
        (
            Telemetry(mlflow="mlruns"),
            "telemetry.mlflow = mlruns: http://HOST:PORT | https://HOST | sqlite:///FILE",
        ),
        (Telemetry(mlflow="file:///mlruns"), "MLflow takes no new runs in folders; give sqlite:///mlflow.db"),
        *(
            (Telemetry(mlflow=address), f"telemetry.mlflow = {shown}: an address without {part} is accepted")
            for address, shown, part in (
                ("https://me:secret@host", "https://...@host", "a user or a password"),
                ("https://secret@host/x", "https://...@host/x", "a user or a password"),
                ("postgresql://secret@host/x", "postgresql://...@host/x", "a user or a password"),
                ("sqlite://secret@host/x.db", "sqlite://...@host/x.db", "a user or a password"),
                ("http://host/?token=secret", "http://host/?...", "a query"),
                ("http://host/#secret", "http://host/?...", "a query"),
                ("sqlite:///m.db?key=secret", "sqlite:///m.db?...", "a query"),
            )
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(telemetry: Telemetry, message: str) -> None:
    [problem] = logger_problems(telemetry)
    assert message in problem
    assert "secret" not in problem


@pytest.mark.parametrize("address", ["http://h:1", "sqlite:////home/me@work/m.db", "databricks", "uc:x"])
def test_addresses_without_secrets_are_accepted(address: str) -> None:
    assert [line for line in logger_problems(Telemetry(mlflow=address)) if "without" in line] == []


@pytest.mark.parametrize(
    "telemetry",
    [Telemetry(wandb="p"), Telemetry(wandb="me/p"), Telemetry(mlflow="sqlite:///m.db"), Telemetry()],
)
def test_what_can_be_meant_is_accepted(telemetry: Telemetry) -> None:
    assert logger_problems(telemetry) == []


def test_a_package_that_is_not_there_is_named_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlstack.config.loggers.find_spec", lambda name: None)
    assert missing_packages(Telemetry()) == []
    assert missing_packages(Telemetry(tensorboard=True, wandb="p")) == [
        "telemetry.tensorboard = true: its package is not installed; "
        "pip install 'rlstack-megatron[tensorboard]', or leave the setting out",
        "telemetry.wandb = p: its package is not installed; "
        "pip install 'rlstack-megatron[wandb]', or leave the setting out",
    ]


def test_a_folder_is_no_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "wandb").mkdir()
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "wandb", raising=False)  # where another test has imported it
    assert len(missing_packages(Telemetry(wandb="p"))) == 1


def test_a_logger_gets_all_that_a_run_reports(config: RunConfig, tmp_path: Path) -> None:
    config.telemetry.wandb = "records"
    with Recorder(config) as recorder:
        recorder.evaluated({"eval/accuracy": 0.5, "eval/task/reward": None, "eval/version": 0})
        recorder.step(1, {"reward/mean": 0.25, "loss/total": math.nan, "sync/verified": True})
        recorder.rewind(0, {}, {})
        steps(recorder, 1, 2)
    opened, evaluation, first, alarm, rewound, *again, finished = calls(tmp_path / "a", "wandb")
    assert opened[1]["name"] == "a"
    assert opened[1]["settings"]["run.name"] == "a"
    assert opened[1]["settings"]["schedule.num_steps"] == 100
    assert opened[1]["settings"]["data.tasks"] == "[]"
    assert set(opened[1]["changed"]) == {"run.dir", "run.name", "policy.model", "telemetry.wandb"}
    assert evaluation == ["log", 0, {"eval/accuracy": 0.5, "eval/version": 0.0}]
    row = json.loads((tmp_path / "a" / "metrics.jsonl").read_text().splitlines()[0])
    assert first[:2] == ["log", 1]
    assert first[2].keys() == {*row, "sync/verified"} - {"step", "loss/total"}
    assert alarm == ["alarm", 1, "divergence", "loss/total is nan"]
    assert rewound == ["rewind", 0]
    assert [call[:2] for call in again] == [["log", 1], ["log", 2]]
    assert finished[:2] == ["finish", "completed"]
    assert finished[2]["summary/steps"] == 2
    assert not any(name.startswith(("summary/roles", "summary/hardware")) for name in finished[2])
    assert children() == []


@pytest.mark.parametrize(
    ("does", "why"), [("raises", "OSError: no space left"), ("dies", "its process ended with status 3")]
)
def test_a_logger_that_fails_is_left_out_and_the_run_goes_on(
    config: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str], does: str, why: str
) -> None:
    config.telemetry.wandb, config.telemetry.mlflow = does, "records"
    with Recorder(config) as recorder:
        steps(recorder, 1, 5)
    assert written(tmp_path / "a") == [1, 2, 3, 4, 5]
    assert capsys.readouterr().out.count(f"wandb: {why}; metrics.jsonl has everything") == 1
    assert [call[0] for call in calls(tmp_path / "a", "mlflow")] == ["open", *["log"] * 5, "finish"]
    assert children() == []


def test_a_logger_that_blocks_is_ended_with_the_run(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(loggers, "CLOSE_S", 0.2)
    config.telemetry.wandb = "blocks"
    with Recorder(config) as recorder:
        steps(recorder, 1, 5)
    assert written(tmp_path / "a") == [1, 2, 3, 4, 5]
    assert (
        "wandb: was not done 0 s after the run's end; metrics.jsonl has everything" in capsys.readouterr().out
    )
    assert json.loads((tmp_path / "a" / "summary.json").read_text())["status"] == "completed"
    assert children() == []


def test_a_logger_that_falls_behind_is_left_out(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(remote, "MOST_WAITING", 3)
    config.telemetry.wandb = "blocks"
    with Recorder(config) as recorder:
        steps(recorder, 1, 20)
    assert written(tmp_path / "a") == list(range(1, 21))
    assert capsys.readouterr().out.count("wandb: is 3 steps behind; metrics.jsonl has everything") == 1
    assert children() == []


def test_a_logger_that_cannot_begin_is_one_error_before_anything_else(
    config: RunConfig, tmp_path: Path
) -> None:
    config.telemetry.wandb, config.telemetry.mlflow = "refuses", "refuses"
    with pytest.raises(ConfigError) as error:
        Recorder(config)
    assert str(error.value).splitlines() == [
        "telemetry.wandb = refuses: ValueError: the server says no; "
        "run `wandb login`, set WANDB_MODE=offline in the environment, or set it to null",
        "telemetry.mlflow = refuses: ValueError: the server says no; give sqlite:///FILE or the address of a "
        "server that runs, or set it to null",
    ]
    assert children() == []
    config.telemetry = Telemetry()
    with Recorder(config):  # the folder is free again
        pass


def test_a_logger_that_does_not_answer_has_a_limit(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loggers, "OPEN_S", 0.5)
    config.telemetry.mlflow = "hangs"
    with pytest.raises(
        ConfigError, match=r"telemetry\.mlflow = hangs: did not answer within 0 s; give sqlite"
    ):
        Recorder(config)
    assert children() == []


@pytest.mark.parametrize(("error", "status"), [(KeyboardInterrupt, "interrupted"), (ValueError, "failed")])
def test_how_a_run_ends_is_told(
    config: RunConfig, tmp_path: Path, error: type[BaseException], status: str
) -> None:
    config.telemetry.tensorboard = True
    with pytest.raises(error), Recorder(config):
        raise error
    assert calls(tmp_path / "a", "tensorboard")[-1][:2] == ["finish", status]


@pytest.mark.parametrize("does", ["records", "blocks"])
def test_a_driver_that_is_killed_leaves_no_process(config: RunConfig, tmp_path: Path, does: str) -> None:
    driver = subprocess.run(
        [sys.executable, "-c", DRIVER, str(tmp_path), does], stdout=subprocess.PIPE, text=True
    )
    assert driver.returncode == -signal.SIGKILL
    pid = int(driver.stdout.split()[-1])
    until = time.monotonic() + 60
    while runs(pid):
        assert time.monotonic() < until
        time.sleep(0.05)
    said = calls(tmp_path, "wandb")
    assert [call[0] for call in said] == ["open", "log", *(["log", "finish"] if does == "records" else [])]
    assert does == "blocks" or said[-1] == ["finish", "interrupted", {}]


def test_a_resumed_run_goes_on_with_what_its_loggers_had(config: RunConfig, tmp_path: Path) -> None:
    config.telemetry.wandb, config.telemetry.tensorboard = "records", True
    with pytest.raises(KeyboardInterrupt), Recorder(config) as recorder:
        steps(recorder, 1, 3)
        lengths: dict[str, Any] = recorder.lengths()
        steps(recorder, 4, 5)
        raise KeyboardInterrupt
    config.telemetry.mlflow, config.telemetry.tensorboard = "records", False
    with Recorder(config, resume=True) as recorder:
        recorder.rewind(3, lengths, {})
        steps(recorder, 4, 6)
    again = calls(tmp_path / "a", "wandb")[-6:]
    assert again[0][1]["ids"] == {"id": "new"}
    assert [call[:2] for call in again[1:]] == [
        ["rewind", 3],
        ["log", 4],
        ["log", 5],
        ["log", 6],
        ["finish", "completed"],
    ]
    assert calls(tmp_path / "a", "mlflow")[0][1]["ids"] == {}
    ids = json.loads((tmp_path / "a" / "loggers.json").read_text())
    assert ids.keys() == {"wandb", "tensorboard", "mlflow"}


def test_another_project_is_another_run(config: RunConfig, tmp_path: Path) -> None:
    config.telemetry.wandb = "records"
    with pytest.raises(KeyboardInterrupt), Recorder(config):
        raise KeyboardInterrupt
    config.telemetry.wandb = "elsewhere"
    with Recorder(config, resume=True) as recorder:
        recorder.rewind(0, {}, {})
    opened = [call for call in calls(tmp_path / "a", "wandb") if call[0] == "open"]
    assert [call[1]["ids"] for call in opened] == [{}, {}]
