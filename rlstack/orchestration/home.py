"""Where a role lives: what Ray is told of it, and the environment that its process gets."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from typing import Any, NamedTuple

import psutil
import ray

from rlstack.config.threads import compute_on_one_thread
from rlstack.files import compile_privately
from rlstack.orchestration.loopback import is_loopback


class Home(NamedTuple):
    """A role that is started again is started at the same home, unless its node was lost."""

    scheduling: Any = None  # one of Ray's scheduling strategies; None: wherever Ray likes
    gpus: tuple[str, ...] = ()  # as CUDA_VISIBLE_DEVICES has them on that node
    environment: Mapping[str, str] = {}  # of the run's settings
    samples_gpus: bool = True  # False: another role on the same GPUs does
    node: str = ""  # Ray's id of the node, on a cluster; "": the one machine of a run that has its own Ray
    address: str = ""  # of that node

    @property
    def options(self) -> dict[str, object]:
        """Of the Ray actor, which asks for nothing itself: what it uses is reserved."""
        return {"num_cpus": 0} | ({} if self.scheduling is None else {"scheduling_strategy": self.scheduling})


def settle(gpus: tuple[str, ...], environment: Mapping[str, str]) -> None:
    """Set this process's environment, before it imports what reads it.

    Ray's own address says which network interface the nodes reach each other by. Without being told, gloo
    takes the one that the machine's name resolves to, which may be loopback, and NCCL the first. What the
    environment says of it counts on a cluster only: a Ray on loopback is one machine's, which nobody else is
    to reach.
    """
    if gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
    else:
        compute_on_one_thread(os.environ)
    compile_privately()
    os.environ.update(environment)
    os.environ["PYTHONSAFEPATH"] = "1"  # of what the role starts: no modules from the working directory
    address = ray.util.get_node_ip_address()
    if (interface := interface_of(address, interfaces())) is not None:
        for name, value in (
            ("GLOO_SOCKET_IFNAME", interface),
            ("NCCL_SOCKET_IFNAME", f"={interface}"),  # without = all that begin so
        ):
            if is_loopback(address) or name not in os.environ:
                os.environ[name] = value


def interfaces() -> dict[str, list[str]]:
    """The IP addresses of this machine by network interface."""
    families = (socket.AF_INET, socket.AF_INET6)
    return {
        name: [address.address for address in addresses if address.family in families]
        for name, addresses in psutil.net_if_addrs().items()
    }


def interface_of(address: str, found: Mapping[str, list[str]]) -> str | None:
    """The name of the interface with `address`, any for a loopback one; None if it is nobody's."""
    for name, addresses in found.items():
        plain = [each.partition("%")[0] for each in addresses]
        if address in plain or (is_loopback(address) and any(map(is_loopback, plain))):
            return name
    return None
