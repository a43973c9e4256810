"""A Ray cluster of several nodes on this machine, each at a loopback address of its own."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
from ray._private import ray_constants

RAY = Path(sys.executable).with_name("ray")
# Everybody else's processes of Ray's stay as they are: `ray stop` would end those too.
ENVIRONMENT = {
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
    "RAY_USAGE_STATS_ENABLED": "0",
    ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR: "1",  # whatever a test before this one has set it to
}


# For a head that gives a node up two seconds after its last words, instead of the better part of a minute.
SOON_LOST = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "4",
}


@contextmanager
def ray_nodes(
    addresses: Sequence[str],
    *,
    num_cpus: int,
    auth: str = "token",
    extra: Mapping[str, Mapping[str, str]] | None = None,
    working: Mapping[str, Path] | None = None,
) -> Iterator[str]:
    """Nodes at `addresses`, the first of which is the head; yields the cluster's address.

    auth: disabled for a cluster that asks for no token.
    extra, working: by address, more of a node's environment, and its working directory.
    """
    environment = os.environ | ENVIRONMENT | {"RAY_AUTH_MODE": auth}
    folder = Path(tempfile.mkdtemp(prefix="ray-"))  # short, for the names of sockets may not be long
    head = f"{addresses[0]}:{free_port(addresses[0])}"
    dashboard = ["--include-dashboard=false"]
    started: list[subprocess.Popen[bytes]] = []
    try:
        for address in addresses:
            first = ["--head", f"--port={head.rpartition(':')[2]}", *dashboard]
            role = first if address == addresses[0] else [f"--address={head}"]
            common = [f"--num-cpus={num_cpus}", f"--object-store-memory={100 << 20}", "--block"]
            common += [f"--temp-dir={folder}/{len(started)}"]  # a node's own, as in the examples
            command = [RAY, "start", *role, f"--node-ip-address={address}", *common]
            log = (folder / f"{address}.log").open("wb")
            own, here = (extra or {}).get(address, {}), (working or {}).get(address)
            started.append(subprocess.Popen(command, env=environment | own, cwd=here, stdout=log, stderr=log))
            wait_until_listed(address, folder / f"{address}.log")
        yield head
    finally:
        end(started)
        shutil.rmtree(folder, ignore_errors=True)


def wait_until_listed(address: str, log: Path) -> None:
    deadline = time.monotonic() + 120
    while "Ray runtime started" not in (text := log.read_text(errors="replace")):
        assert time.monotonic() < deadline and "Error:" not in text, f"node {address}: {text}"
        time.sleep(0.2)


def end(started: Sequence[subprocess.Popen[bytes]]) -> None:
    family = [each for process in started for each in with_children(process.pid)]
    for process in started:
        process.terminate()
    _, left = psutil.wait_procs(family, timeout=15)
    for each in left:
        each.kill()
    for process in started:
        process.wait(15)


def with_children(pid: int) -> list[psutil.Process]:
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def kill_node(address: str) -> None:
    """End the Ray at `address`, which is no head, and all that it runs, as a loss of power would."""
    (raylet,) = [each for each in psutil.process_iter(["name", "cmdline"]) if _is_raylet(each, address)]
    for process in with_children(raylet.pid):
        with suppress(psutil.NoSuchProcess):
            process.kill()


def _is_raylet(process: psutil.Process, address: str) -> bool:
    info = process.info
    return info["name"] == "raylet" and f"--node_ip_address={address}" in (info["cmdline"] or [])


def free_port(address: str) -> int:
    with socket.socket() as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])
