"""A run on this machine only: Ray's services and the roles listen on 127.0.0.1, not on every interface.

Ray binds to loopback when it is told that there is no cluster beyond this machine, which it assumes by
itself only on macOS and Windows (ray/_private/services.py, get_node_ip_address). The variable tells the
processes that Ray starts; the constant, which was read when ray was imported, tells this one.
"""

from __future__ import annotations

import ipaddress
import os
from contextlib import suppress

import psutil
from ray._private import ray_constants

from rlstack.errors import StrangerError

LOOPBACK = "127.0.0.1"


def stay_on_loopback() -> None:
    """Call before `ray.init` starts a cluster of its own."""
    os.environ[ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR] = "0"
    ray_constants.ENABLE_RAY_CLUSTER = False


def is_alone() -> bool:
    """True if this process belongs to a Ray that is for one machine, as Ray tells its processes."""
    return os.environ.get(ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR) == "0"


def is_loopback(address: str) -> bool:
    """Whether only this machine reaches `address`, an IP address; ::ffff: before one of IPv4 is ignored."""
    return ipaddress.ip_address(address.removeprefix("::ffff:")).is_loopback


def refuse_listeners() -> None:
    """Raise StrangerError if this process or one below it listens where other machines can connect."""
    me = psutil.Process()
    for process in (me, *me.children(recursive=True)):
        with suppress(psutil.Error):  # it has ended
            for socket in process.net_connections("tcp"):
                if socket.status == psutil.CONN_LISTEN and not is_loopback(socket.laddr.ip):
                    raise StrangerError(
                        f"process {process.pid} ({process.name()}) listens on {socket.laddr.ip}, port "
                        f"{socket.laddr.port}, where other machines can connect; with cluster.address = null "
                        "loopback only is accepted: install the versions of packages that pyproject.toml "
                        "names, and unset variables of the environment that name a host or an interface"
                    )
