"""A run of MLflow, by its client: metrics, parameters and tags; no artifacts."""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import httpx

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # MLflow's own, to its makers

from mlflow.entities import Metric, Param, RunTag
from mlflow.tracking import MlflowClient

from rlstack.telemetry.loggers.backend import Opened, Scalar, Start, Values, numbers

EXPERIMENT = "rlstack"  # where MLFLOW_EXPERIMENT_NAME says no other
REACH_S = 10.0  # for a server to answer at all: MLflow itself tries for minutes
MOST_PARAMS, MOST_CHARS = 100, 6000  # of a request, and of a value
STATUS = {"completed": "FINISHED", "interrupted": "KILLED"}
REFUSED = re.compile(r"[^\w/. :-]")


class MLflow:
    """Steps that come again are logged again; MLflow keeps both values, the later one by its time."""

    def open(self, start: Start) -> Opened:
        self._client = _client(start.target)
        self._last_step = 0
        self._ambiguous = ambiguous(_tasks(start.settings))
        self._settings = {key: _text(value) for key, value in start.settings.items()}
        run = self._go_on(start.ids["run_id"]) if start.ids else self._begin(start.name)
        self._id = run.info.run_id
        page = f"/#/experiments/{run.info.experiment_id}/runs/{self._id}"
        place = start.target.rstrip("/") + page if start.target.startswith("http") else start.target
        return Opened({"run_id": self._id}, place)

    def _begin(self, name: str) -> Any:
        wanted = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
        experiment = self._client.get_experiment_by_name(wanted)
        place = experiment.experiment_id if experiment else self._client.create_experiment(wanted)
        run = self._client.create_run(place, run_name=name)
        for some in _chunks([Param(key, text) for key, text in self._settings.items()], MOST_PARAMS):
            self._client.log_batch(run.info.run_id, params=some)
        return run

    def _go_on(self, run_id: str) -> Any:
        """A parameter's value cannot be changed: what differs this time becomes a tag."""
        run = self._client.get_run(run_id)
        self._client.update_run(run_id, status="RUNNING")
        for key, text in self._settings.items():
            if run.data.params.get(key) != text:
                self._client.set_tag(run_id, f"resumed.{key}", text)
        return run

    def log(self, step: int, values: Values) -> None:
        self._last_step = max(self._last_step, step)
        now_ms = time.time_ns() // 10**6
        metrics = [
            Metric(metric_name(name, self._ambiguous), value, now_ms, step) for name, value in values.items()
        ]
        self._client.log_batch(self._id, metrics=metrics)

    def alarm(self, step: int, title: str, text: str) -> None:
        self._client.set_tag(self._id, f"alarm.{step}.{title}", text)

    def rewind(self, step: int) -> None:
        """Nothing: what comes again has a later time."""

    def finish(self, status: str, summary: Mapping[str, Scalar]) -> None:
        self.log(self._last_step, numbers(summary))
        self._client.log_batch(self._id, tags=[RunTag("status", status)])
        self._client.set_terminated(self._id, STATUS.get(status, "FAILED"))


def reach(target: str) -> None:
    """Ask the server or database at `target` for an experiment; raises what MLflow does."""
    _client(target).search_experiments(max_results=1)


def _client(target: str) -> MlflowClient:
    if target.startswith(("http://", "https://")):
        httpx.get(target, timeout=REACH_S)
    return MlflowClient(tracking_uri=target)


def ambiguous(tasks: Sequence[str]) -> list[str]:
    """The names of tasks that MLflow does not accept, and that would become those of others."""
    times = Counter(map(metric_name, set(tasks)))
    return sorted({task for task in tasks if metric_name(task) != task and times[metric_name(task)] > 1})


def metric_name(name: str, ambiguous: Sequence[str] = ()) -> str:
    """`name` as MLflow accepts it: what is neither a letter, a digit nor one of _ - . : / or a space is _.

    A name with one of the `ambiguous` tasks in it ends in a digest, so that two are never one metric.
    """
    if any(f"/{task}" in name for task in ambiguous):
        digest = hashlib.blake2b(name.encode(errors="backslashreplace"), digest_size=4).hexdigest()
        return f"{metric_name(name)}-{digest}"
    parts = REFUSED.sub("_", name).split("/")
    return "/".join("_" if part in ("", ".", "..") else part for part in parts)


def _tasks(settings: Mapping[str, Scalar]) -> list[str]:
    """The names of the run's tasks, of training and of evaluation."""
    lists = [json.loads(str(settings.get(key) or "[]")) for key in ("data.tasks", "evaluation.tasks")]
    return [task["name"] for tasks in lists for task in tasks]


def _text(value: Scalar) -> str:
    """As YAML has it."""
    words = {None: "null", True: "true", False: "false"}
    text = words[value] if value is None or isinstance(value, bool) else str(value)
    return text[:MOST_CHARS]


def _chunks(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (items[start : start + size] for start in range(0, len(items), size))
