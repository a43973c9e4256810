"""Ray on this machine only: its services listen on 127.0.0.1 instead of on every interface.

Ray binds to loopback when it is told that there is no cluster beyond this machine, which it assumes by
itself only on macOS and Windows (ray/_private/services.py, get_node_ip_address). The variable tells the
processes that Ray starts; the constant, which was read when ray was imported, tells this one.
"""

from __future__ import annotations

import os

from ray._private import ray_constants

LOOPBACK = "127.0.0.1"


def stay_on_loopback() -> None:
    """Call before `ray.init` starts a cluster of its own."""
    os.environ[ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR] = "0"
    ray_constants.ENABLE_RAY_CLUSTER = False
