"""Join a Ray cluster that runs; each reason that keeps a process out of it has an error and a remedy."""

from __future__ import annotations

import logging
import os
import socket
from typing import Any

import psutil
import ray
import ray._raylet
from ray._private import services
from ray.exceptions import AuthenticationError, RayError
from ray.job_config import JobConfig

from rlstack.config.ray_token import MODE, token_problem, token_source
from rlstack.errors import ConfigError
from rlstack.orchestration.ray_environment import demand_token, environment

CONNECT_S = 5.0
ANSWER_S = 10.0
GCS = "--gcs-address="  # among a raylet's arguments
PAGE = "docs/how-to/clusters.md#nodes-of-your-own"  # has the commands that start a cluster

_raylet: Any = ray._raylet  # compiled, and its types say less than it has


def join(address: str, *, job_config: JobConfig) -> None:
    """Make this process a driver of the cluster at `address`: auto, or HOST:PORT of its head node.

    Raises ConfigError if nothing answers there, if the cluster takes no token, if this user has no token
    that nobody else reads, if the cluster refuses it, or if this machine is none of its nodes.
    """
    try:
        given = _own_cluster() if address == "auto" else address
        where = services.canonicalize_bootstrap_address_or_die(given)
        problem = _silence(where) or _open_problem(where) or token_problem()
        if problem is None:
            demand_token()
            problem = _refusal(where)
        if problem is None:
            ray.init(address=where, job_config=job_config, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RayError, RuntimeError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(
            f"cluster.address = {address}: the address of a running Ray cluster is accepted, from one of its "
            f"nodes ({reason}); {PAGE} has the commands that start one"
        ) from error
    if problem is not None:
        raise ConfigError(f"cluster.address = {address}: {problem}")


def _own_cluster() -> str:
    """The address of the Ray that this user runs here; Ray itself takes the one that anybody left in /tmp.

    Raises ValueError unless there is one.
    """
    if given := os.environ.get("RAY_ADDRESS"):
        return given
    found = own_clusters()
    if len(found) != 1:
        where = ", ".join(sorted(found)) or "none"
        raise ValueError(f"auto finds the only Ray that you run on this machine, and there is {where}")
    return found.pop()


def own_clusters() -> set[str]:
    """HOST:PORT of the head nodes of the Rays that this user runs on this machine, in its network.

    Raylets of containers, and of other network namespaces, have addresses that mean something else here.
    """
    processes = psutil.process_iter(["name", "uids", "cmdline"])
    words = [word for each in processes if _is_own_raylet(each) for word in each.info["cmdline"] or ()]
    return {word.partition("=")[2] for word in words if word.startswith(GCS)}


def _is_own_raylet(process: psutil.Process) -> bool:
    info = process.info
    if info["name"] != "raylet" or info["uids"] is None or info["uids"].real != os.getuid():
        return False
    try:
        return os.path.samefile(f"/proc/{process.pid}/ns/net", "/proc/self/ns/net")
    except OSError:  # it has ended
        return False


def _silence(address: str) -> str | None:
    """The refusal of an address where nothing answers, for which Ray itself would wait for minutes.

    Raises ValueError for what is no address.
    """
    host, _, port = address.rpartition(":")
    number = int(port)
    try:
        socket.create_connection((host.strip("[]"), number), timeout=CONNECT_S).close()
    except OSError as error:
        return (
            f"the address of a running Ray cluster is accepted, and nothing answers at {address} within "
            f"{CONNECT_S:g} s ({error.strerror or error}); see whether the head node is up and no firewall "
            f"is in between, or start Ray there: {PAGE} has the commands"
        )
    return None


def _open_problem(address: str) -> str | None:
    """The refusal of a Ray that answers without a token. Raises RayError if it does not answer at all."""
    with environment({MODE: "disabled"}):
        try:
            _raylet.GcsClient(address=address).get_all_node_info(timeout=ANSWER_S)
        except AuthenticationError:
            return None
    return (
        "this cluster asks for no token, so everybody who reaches it can run code as you; start its nodes "
        f"with {MODE}=token, as {PAGE} has it"
    )


def _refusal(address: str) -> str | None:
    """The cluster's refusal of this user's token, which ray.init would repeat for half a minute."""
    try:
        _raylet.GcsClient(address=address).get_all_node_info(timeout=ANSWER_S)
    except AuthenticationError:
        return (
            f"the cluster has another token than {token_source()}; copy the one with which its head node was "
            f"started, as {PAGE} has it"
        )
    return None
