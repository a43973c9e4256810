"""The loopback interface, on which a run's processes meet, and the ports that CONFIG allows."""

from __future__ import annotations

import socket

from rlstack.doctor.facts import Network, Settings
from rlstack.preflight.machine import busy_ports

CONNECT_S = 5.0


def look(settings: Settings | None) -> Network:
    """Loopback, and the ports that CONFIG names."""
    ports = settings.ports if settings is not None else None
    host = "" if settings is not None and settings.joins_cluster else "127.0.0.1"
    busy = () if ports is None else tuple(busy_ports(ports, host=host))
    return Network(loopback_error=_loopback_error(), busy_ports=busy)


def _loopback_error() -> str | None:
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            socket.create_connection(server.getsockname(), timeout=CONNECT_S).close()
    except OSError as error:
        return str(error)
    return None
