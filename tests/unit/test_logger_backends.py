"""The same numbers under the same names in TensorBoard, W&B and MLflow, read back as each of them does."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from rlstack.config.loggers import missing_packages
from rlstack.config.schema import RunConfig, Telemetry
from rlstack.errors import ConfigError
from rlstack.telemetry.recorder import Recorder
from tests import wandb_file

NAMES = ("reward/mean", "policy/entropy", "reward/mean/sums (hard)", "sync/verified")
EXPECTED_STEPS = [1, 2, 3, 4, 5, 6]

pytestmark = pytest.mark.skipif(
    bool(missing_packages(Telemetry(tensorboard=True, wandb="p", mlflow="m"))),
    reason="a package is not there",
)


def metrics(step: int) -> dict[str, Any]:
    values: dict[str, Any] = dict.fromkeys(NAMES, step / 8) | {"sync/verified": True}
    return values | {"loss/total": math.nan if step == 2 else 0.5, "tokens/generated": 100}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run that was interrupted after step 5 and resumed from step 3, with other ranks, to its end."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        patch.setattr("rlstack.telemetry.recorder.report", lambda *_, **__: None)  # which takes a second
        config = RunConfig()
        config.run.dir, config.run.name, config.policy.model = str(folder), "a", "/model"
        config.telemetry = Telemetry(tensorboard=True, wandb="team/sums", mlflow=f"sqlite:///{folder}/m.db")
        with suppress(KeyboardInterrupt), Recorder(config) as recorder:
            recorder.evaluated({"eval/accuracy": 0.25, "eval/version": 0})
            for step in (1, 2, 3):
                recorder.step(step, metrics(step))
            lengths, state = recorder.lengths(), recorder.state()
            for step in (4, 5):
                recorder.step(step, metrics(step))
            raise KeyboardInterrupt
        config.policy.data_parallel = 2
        with Recorder(config, resume=True) as recorder:
            recorder.rewind(3, lengths, state)
            for step in (4, 5, 6):
                recorder.step(step, metrics(step))
            recorder.evaluated({"eval/accuracy": 0.75, "eval/version": 6})
        yield folder / "a"


def test_nothing_went_wrong(folder: Path) -> None:
    for log in (folder / "logs").iterdir():
        assert "Traceback" not in log.read_text() or log.name == "error.log"
    assert [json.loads(line)["step"] for line in (folder / "metrics.jsonl").open()] == EXPECTED_STEPS


def test_tensorboard_has_each_step_once(folder: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0, "tensors": 0})
    events.Reload()
    for name in NAMES:
        points = [(event.step, event.value) for event in events.Scalars(name)]
        assert points == [(step, float(metrics(step)[name])) for step in EXPECTED_STEPS]
    assert [event.step for event in events.Scalars("loss/total")] == [1, 3, 4, 5, 6]
    assert [(e.step, e.value) for e in events.Scalars("eval/accuracy")] == [(0, 0.25), (6, 0.75)]

    def text(tag: str) -> list[str]:
        return [event.tensor_proto.string_val[0].decode() for event in events.Tensors(tag)]

    assert 'run.name: "a"' in text("settings")[0]
    assert "**divergence**: loss/total is nan" in text("alarms")
    assert 'status: "completed"' in text("summary")[-1]
    assert {"_hparams_/session_start_info", "_hparams_/session_end_info"} <= set(events.Tags()["tensors"])


def test_wandb_has_one_run_in_two_files(folder: Path) -> None:
    ids = json.loads((folder / "loggers.json").read_text())["wandb"]
    first, second = sorted((folder / "wandb").glob(f"offline-run-*-{ids['id']}/*.wandb"))
    assert set(wandb_file.history(first)) == {0, 1, 2, 3, 4, 5}
    rows = wandb_file.history(second)
    assert set(rows) == {4, 5, 6}
    for name in NAMES:
        assert rows[6][name] == metrics(6)[name]
    assert rows[6]["eval/accuracy"] == 0.75
    assert wandb_file.history(first)[0]["eval/accuracy"] == 0.25
    assert "loss/total" not in wandb_file.history(first)[2]
    run = wandb_file.last(second, "run")
    assert (run.entity, run.project, run.display_name, run.host) == ("team", "sums", "a", "")
    assert wandb_file.updates(second, "config")["policy.data_parallel"] == 2
    assert wandb_file.updates(second, "summary")["summary/status"] == "completed"
    assert wandb_file.last(first, "alert").title == "divergence"
    assert [wandb_file.last(path, "exit").exit_code for path in (first, second)] == [255, 0]


def test_wandb_gets_nothing_of_machine_and_code(folder: Path) -> None:
    for path in (folder / "wandb").rglob("files"):
        assert list(path.iterdir()) == []


def test_mlflow_has_the_steps_that_came_again_twice(folder: Path) -> None:
    from mlflow.tracking import MlflowClient

    ids = json.loads((folder / "loggers.json").read_text())["mlflow"]
    client = MlflowClient(ids["target"])
    run = client.get_run(ids["run_id"])
    assert (run.info.run_name, run.info.status) == ("a", "FINISHED")
    assert client.get_experiment(run.info.experiment_id).name == "rlstack"
    assert run.data.params["policy.data_parallel"] == "1"
    assert run.data.params["telemetry.tensorboard"] == "true"
    assert run.data.params["optimizer.lr"] == "1e-06"
    assert run.data.tags["resumed.policy.data_parallel"] == "2"
    assert run.data.tags["alarm.2.divergence"] == "loss/total is nan"
    assert run.data.metrics["summary/steps"] == 6
    values = [(each.step, each.value) for each in client.get_metric_history(ids["run_id"], "reward/mean")]
    assert sorted(values) == [(step, step / 8) for step in (1, 2, 3, 4, 4, 5, 5, 6)]
    assert run.data.metrics["reward/mean/sums _hard_"] == 0.75
    assert run.data.metrics["eval/accuracy"] == 0.75


def test_the_names_are_those_of_metrics_jsonl(folder: Path) -> None:
    row = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    path = max((folder / "wandb").glob("*/*.wandb"))
    logged = {name for name in wandb_file.history(path)[6] if not name.startswith("_")}
    assert logged == row.keys() - {"step"} | {"eval/accuracy", "eval/version"}


@pytest.mark.parametrize(
    ("name", "accepted"),
    [
        ("eval/a b/pass_at_4", "eval/a b/pass_at_4"),
        ("a(b)+c", "a_b__c"),
        ("ü/é", "ü/é"),
        ("a//b", "a/_/b"),
        ("../a", "_/a"),
        ("/a", "_/a"),
        ("a/./b", "a/_/b"),
    ],
)
def test_mlflow_accepts_any_name_of_a_task(name: str, accepted: str) -> None:
    from mlflow.utils.validation import _validate_metric_name

    from rlstack.telemetry.loggers.to_mlflow import metric_name

    _validate_metric_name(accepted)
    assert metric_name(name) == accepted


def test_two_tasks_of_mlflow_are_never_one_metric(tmp_path: Path) -> None:
    from mlflow.tracking import MlflowClient

    from rlstack.telemetry.loggers.backend import Start
    from rlstack.telemetry.loggers.to_mlflow import MLflow

    names = ["a(1)", "a[1]", "a_1_", "b(1)"]
    target = f"sqlite:///{tmp_path / 'runs.db'}"
    tasks = {"data.tasks": json.dumps([{"name": name} for name in names[:3]]), "evaluation.tasks": "[]"}
    logger = MLflow()
    opened = logger.open(
        Start(name="x", folder=str(tmp_path), target=target, settings=tasks, changed=[], ids={})
    )
    logger.log(1, {f"reward/mean/{name}": float(number) for number, name in enumerate(names)})
    logged = MlflowClient(target).get_run(opened.ids["run_id"]).data.metrics
    assert sorted(logged.values()) == [0.0, 1.0, 2.0, 3.0]
    assert (logged["reward/mean/a_1_"], logged["reward/mean/b_1_"]) == (2.0, 3.0)


def config_with(tmp_path: Path, **telemetry: Any) -> RunConfig:
    config = RunConfig(telemetry=Telemetry(**telemetry))
    config.run.dir, config.policy.model = str(tmp_path), "/model"
    return config


def test_wandb_without_a_login_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with pytest.raises(
        ConfigError, match=r"telemetry\.wandb = p: .*No API key configured.*; run `wandb login`"
    ):
        Recorder(config_with(tmp_path, wandb="p"))


def test_an_mlflow_server_that_is_not_there_is_refused(tmp_path: Path) -> None:
    address = "http://127.0.0.1:9"
    with pytest.raises(ConfigError, match=r"telemetry\.mlflow = http://127.*ConnectError.*; give sqlite"):
        Recorder(config_with(tmp_path, mlflow=address))
