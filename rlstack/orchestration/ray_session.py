"""The Ray that a run uses: its own, which ends with it, or one that it joins."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import ray
from ray._private import services, worker

from rlstack.config.machine import Machine
from rlstack.config.schema import Cluster
from rlstack.errors import ConfigError
from rlstack.orchestration.loopback import stay_on_loopback

CONNECT_S = 10.0


def start_ray(settings: Cluster) -> list[psutil.Process]:
    """Join the cluster at `settings.address`, or start a Ray of this machine's; the processes that this has.

    Raises ConfigError if there is no cluster at that address.
    """
    # Read by the Ray processes that start now; a cluster that runs already keeps its own settings.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    with _own_sigterm():
        return _start(settings)


def _start(settings: Cluster) -> list[psutil.Process]:
    if settings.address is not None:
        _join(settings.address)
        return []
    before = psutil.Process().children()
    stay_on_loopback()
    ray.init(
        address="local",  # whatever RAY_ADDRESS or another cluster on this machine says
        num_cpus=Machine.detect().num_cores,  # which the settings have been held against
        object_store_memory=settings.object_store_mib << 20,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    return [child for child in psutil.Process().children() if child not in before and _is_ray(child)]


@contextmanager
def text_to(log: Path) -> Iterator[None]:
    """Have what Ray says of workers that have died appended to `log`, which is there from the first word on.

    Ray itself prints it, in colour, between the lines of whoever uses it. What it is about reaches the caller
    as an exception.
    """

    def write(data: Mapping[str, Any], ignore_prefix: bool) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in data["lines"])

    printing = worker.print_to_stdstream
    worker.print_to_stdstream = write
    try:
        yield
    finally:
        worker.print_to_stdstream = printing


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Keep the handler that this process has set, if it has, which Ray replaces by one of its own."""
    handler = signal.getsignal(signal.SIGTERM)
    yield
    if callable(handler) and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)


def _join(address: str) -> None:
    try:
        where = services.canonicalize_bootstrap_address_or_die(address)  # of auto too
        host, _, port = where.rpartition(":")
        # Ray itself would try for minutes.
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S).close()
        ray.init(address=where, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(
            f"cluster.address = {address}: the address of a running Ray cluster is accepted, from one of its "
            f"nodes and with its token ({reason}); docs/how-to/clusters.md says how to start one"
        ) from error


def with_descendants(processes: Sequence[psutil.Process]) -> list[psutil.Process]:
    """Processes of Ray's, the roles below them, and what the roles have started."""
    return [each for process in processes for each in _with_descendants(process)]


def end_started(processes: list[psutil.Process], *, timeout_s: float) -> None:
    """A role that was killed cannot end its own children (vLLM's workers); nobody else would."""
    _, alive = psutil.wait_procs(processes, timeout=timeout_s)
    for process in alive:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, timeout=timeout_s)


def _is_ray(process: psutil.Process) -> bool:
    """Whether it is Ray's; another thread of this process may start some of its own at the same time."""
    try:
        return any("/ray/" in argument for argument in process.cmdline())
    except psutil.Error:
        return False


def _with_descendants(process: psutil.Process) -> list[psutil.Process]:
    try:
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []
