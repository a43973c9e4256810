"""The loopback interface, on which a run's processes meet, and the ports that CONFIG allows."""

from __future__ import annotations

import errno
import socket

from rlstack.doctor.facts import Network, Settings

CONNECT_S = 5.0


def look(settings: Settings | None) -> Network:
    """Loopback, and the ports that CONFIG names."""
    ports = settings.ports if settings is not None else None
    host = "" if settings is not None and settings.joins_cluster else "127.0.0.1"
    busy = () if ports is None else tuple(p for p in range(ports[0], ports[1] + 1) if _is_busy(host, p))
    return Network(loopback_error=_loopback_error(), busy_ports=busy)


def _loopback_error() -> str | None:
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            socket.create_connection(server.getsockname(), timeout=CONNECT_S).close()
    except OSError as error:
        return str(error)
    return None


def _is_busy(host: str, port: int) -> bool:
    """As rlstack.rendezvous finds out."""
    with socket.socket() as listener:
        try:
            listener.bind((host, port))
        except OSError as error:
            return error.errno == errno.EADDRINUSE
    return False
