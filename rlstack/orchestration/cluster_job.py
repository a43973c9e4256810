"""A training as a job of a Ray cluster's, which runs on the head node and is followed from here.

Over Ray's Jobs API, a part of its dashboard: the settings travel with the job, the data and the model do not.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from rlstack.config.load import dump_config
from rlstack.config.ray_token import mode_problem, token_problem
from rlstack.config.schema import RunConfig
from rlstack.errors import ConfigError

CONFIG = "config.yaml"
ENDED = ("SUCCEEDED", "FAILED", "STOPPED")
STOP_S = 60.0  # for the run to end its processes
POLL_S = 1.0
INTERRUPTED = 130


class JobClient(Protocol):
    """What is used of ray.job_submission.JobSubmissionClient."""

    def submit_job(self, *, entrypoint: str, runtime_env: dict[str, Any]) -> str: ...
    def tail_job_logs(self, job_id: str) -> AsyncIterator[str]: ...
    def get_job_info(self, job_id: str) -> Any: ...
    def stop_job(self, job_id: str) -> bool: ...


def connect(address: str) -> JobClient:
    """The cluster's job server; who asks has to have the cluster's token.

    Raises ConfigError if nobody answers there, or not to this user, and if others can read this user's token.
    """
    if (problem := mode_problem()) is not None:
        raise ConfigError(problem)
    try:
        from ray.job_submission import JobSubmissionClient

        from rlstack.orchestration.ray_environment import demand_token

        demand_token()
        client: JobClient = JobSubmissionClient(address)
    except Exception as error:  # requests', aiohttp's or Ray's own
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(
            f"--address {address}: the address of a Ray cluster's dashboard is accepted ({reason}); start "
            "the head node with ray[default] installed, and give this user the cluster's token"
        ) from error
    if (problem := token_problem()) is not None:
        raise ConfigError(f"--address {address}: {problem}")
    return client


def submit(client: JobClient, config: RunConfig, *, resume: bool) -> str:
    """Let the cluster's head node train as `config` says; the job's name.

    The folder of the run is that of the same path there: storage that all nodes share.
    """
    there = replace(config, run=replace(config.run, dir=os.path.abspath(config.run.dir)))
    with tempfile.TemporaryDirectory(prefix="rlstack-job-") as folder:
        Path(folder, CONFIG).write_text(dump_config(there), encoding="utf-8")
        command = ["rlstack", "launch", CONFIG, "--address", "auto", *(["--resume"] if resume else [])]
        return client.submit_job(entrypoint=shlex.join(command), runtime_env={"working_dir": folder})


def follow(client: JobClient, job: str, *, show: Callable[[str], None]) -> int:
    """Show what the job prints until it has ended, and return its exit status; Ctrl-C ends the job too."""
    try:
        asyncio.run(_show(client, job, show))
        while str(client.get_job_info(job).status) not in ENDED:
            time.sleep(POLL_S)
    except KeyboardInterrupt:
        _stop(client, job)
        return INTERRUPTED
    info = client.get_job_info(job)
    if str(info.status) == "STOPPED":
        return INTERRUPTED
    if info.driver_exit_code is not None:
        return int(info.driver_exit_code)
    if str(info.status) == "FAILED":
        show(f"{info.message}\n")
        return 1
    return 0


async def _show(client: JobClient, job: str, show: Callable[[str], None]) -> None:
    async for lines in client.tail_job_logs(job):
        show(lines)


def _stop(client: JobClient, job: str) -> None:
    client.stop_job(job)
    deadline = time.monotonic() + STOP_S
    while str(client.get_job_info(job).status) not in ENDED and time.monotonic() < deadline:
        time.sleep(POLL_S)
