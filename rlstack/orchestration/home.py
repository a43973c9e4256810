"""Where a role lives: what Ray is told of it, and the environment that its process gets."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Mapping
from typing import Any, NamedTuple

import psutil
import ray

from rlstack.config.threads import compute_on_one_thread


class Home(NamedTuple):
    """A role that is started again is started at the same home."""

    scheduling: Any = None  # one of Ray's scheduling strategies; None: wherever Ray likes
    gpus: tuple[str, ...] = ()  # as CUDA_VISIBLE_DEVICES has them on that node
    environment: Mapping[str, str] = {}  # of the run's settings
    samples_gpus: bool = True  # False: another role on the same GPUs does

    @property
    def options(self) -> dict[str, Any]:
        """Of the Ray actor, which asks for nothing itself: what it uses is reserved."""
        return {"num_cpus": 0} | ({} if self.scheduling is None else {"scheduling_strategy": self.scheduling})


def settle(gpus: tuple[str, ...], environment: Mapping[str, str]) -> None:
    """Set this process's environment, before it imports what reads it.

    Ray's own address says which network interface the nodes reach each other by. Without being told, gloo
    takes the one that the machine's name resolves to, which may be loopback, and NCCL the first.
    """
    if gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
    else:
        compute_on_one_thread(os.environ)
    os.environ.update(environment)
    if (interface := interface_of(ray.util.get_node_ip_address(), interfaces())) is not None:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
        os.environ.setdefault("NCCL_SOCKET_IFNAME", f"={interface}")  # without = all that begin so


def interfaces() -> dict[str, list[str]]:
    """The IP addresses of this machine by network interface."""
    families = (socket.AF_INET, socket.AF_INET6)
    return {
        name: [address.address for address in addresses if address.family in families]
        for name, addresses in psutil.net_if_addrs().items()
    }


def interface_of(address: str, found: Mapping[str, list[str]]) -> str | None:
    """The name of the interface with `address`, any for a loopback one; None if it is nobody's."""
    of_loopback = ipaddress.ip_address(address).is_loopback
    for name, addresses in found.items():
        plain = [each.partition("%")[0] for each in addresses]
        if address in plain or (of_loopback and any(ipaddress.ip_address(a).is_loopback for a in plain)):
            return name
    return None
