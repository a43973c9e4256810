"""A training as a job of a played Ray cluster: what is submitted, shown and returned."""

from __future__ import annotations

import shlex
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from rlstack.cli import app
from rlstack.config.load import load_config
from rlstack.config.schema import Policy, Run, RunConfig
from rlstack.errors import ConfigError
from rlstack.orchestration.cluster_job import connect, follow, submit

CONFIG = RunConfig(run=Run(name="job"), policy=Policy(model="/models/8b"))


class Jobs:
    """Stands for a JobSubmissionClient; the states come one after the other."""

    def __init__(self, *states: str, exit_code: int | None = None, interrupted: bool = False) -> None:
        self.states = list(states)
        self.exit_code = exit_code
        self.interrupted = interrupted
        self.stopped: list[str] = []
        self.submitted: RunConfig | None = None
        self.entrypoint: list[str] = []

    def submit_job(self, *, entrypoint: str, runtime_env: dict[str, Any]) -> str:
        self.entrypoint = shlex.split(entrypoint)
        self.submitted = load_config(Path(runtime_env["working_dir"], self.entrypoint[2]))
        return "job-1"

    async def tail_job_logs(self, job_id: str) -> AsyncIterator[str]:
        yield "step 1\n"
        if self.interrupted:
            raise KeyboardInterrupt
        yield "step 2\n"

    def get_job_info(self, job_id: str) -> Any:
        status = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        return SimpleNamespace(status=status, driver_exit_code=self.exit_code, message="lost its node")

    def stop_job(self, job_id: str) -> bool:
        self.stopped.append(job_id)
        return True


def test_the_settings_travel_and_paths_stay_where_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    jobs = Jobs()
    assert submit(jobs, CONFIG, resume=True) == "job-1"
    assert jobs.entrypoint == ["rlstack", "launch", "config.yaml", "--address", "auto", "--resume"]
    assert jobs.submitted == RunConfig(
        run=Run(name="job", dir=str(tmp_path / "runs")), policy=Policy(model="/models/8b")
    )


@pytest.mark.parametrize(
    ("states", "exit_code", "status", "shown"),
    [
        (["RUNNING", "SUCCEEDED"], 0, 0, "step 1\nstep 2\n"),
        (["FAILED"], 2, 2, "step 1\nstep 2\n"),
        (["FAILED"], None, 1, "step 1\nstep 2\nlost its node\n"),  # the driver did not come to its end
        (["STOPPED"], None, 130, "step 1\nstep 2\n"),
    ],
)
def test_what_it_prints_is_shown_and_its_status_returned(
    states: list[str], exit_code: int | None, status: int, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlstack.orchestration.cluster_job.POLL_S", 0.0)
    texts: list[str] = []
    assert follow(Jobs(*states, exit_code=exit_code), "job-1", show=texts.append) == status
    assert "".join(texts) == shown


def test_ctrl_c_ends_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlstack.orchestration.cluster_job.POLL_S", 0.0)
    jobs = Jobs("RUNNING", "STOPPED", interrupted=True)
    assert follow(jobs, "job-1", show=lambda text: None) == 130
    assert jobs.stopped == ["job-1"]


def test_where_no_cluster_answers_is_said() -> None:
    with pytest.raises(ConfigError, match=r"the address of a Ray cluster's dashboard is accepted"):
        connect("http://127.0.0.1:9")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--address", "ray://10.0.0.1:10001"], "--address ray://10.0.0.1:10001: auto | HOST:PORT | http"),
        (["--address", "10.0.0.1:6379", "--detach"], "--detach: --address http://HOST:PORT is"),
    ],
)  # fmt: skip
def test_what_launch_cannot_do_is_refused(options: list[str], says: str) -> None:
    refused = CliRunner().invoke(app, ["launch", "run.yaml", *options])
    assert refused.exit_code == 2
    assert says in refused.stderr
