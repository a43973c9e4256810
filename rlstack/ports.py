"""Listeners of a run's own services on this machine: one address, and a port of a given range.

Needs the standard library alone.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence

BACKLOG = 1024  # connections that wait to be accepted: all nodes of a large cluster may come at once


def listen(host: str, port_range: Sequence[int] | None = None) -> socket.socket:
    """A socket that listens on `host`, on the first port of `port_range` that nobody listens on.

    A port on which connections of an earlier listener are still winding down (TIME_WAIT, about a minute) is
    free: with SO_REUSEADDR Linux gives it to a new listener, and never to two.

    port_range: the first and the last port that it may take (cluster.port_range); None: any.

    Raises RuntimeError if none of them is free, or if `host` is no address of this machine.
    """
    ports = [0] if port_range is None else range(port_range[0], port_range[1] + 1)
    for port in ports:
        if (listener := _listen_on(host, port)) is not None:
            return listener
    raise RuntimeError(
        f"no port of {host} is free from {ports[0]} to {ports[-1]} (cluster.port_range); widen it"
    )


def is_busy(host: str, port: int) -> bool:
    """Return True if another socket of this machine listens on (`host`, `port`): listen() passes it over."""
    try:
        listener = _listen_on(host, port)
    except RuntimeError:
        return False
    if listener is not None:
        listener.close()
    return listener is None


def _listen_on(host: str, port: int) -> socket.socket | None:
    """None if another socket listens there."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        # Two sockets may be bound to one port until one of them listens; the other then fails here.
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            return None
        raise RuntimeError(f"{host}:{port} cannot be listened on: {error}") from error
    return listener
