"""Where processes find each other: a key-value store that listens on one address only.

torch's own TCPStore server binds to every interface; handing it a socket that is bound already keeps it on
loopback (or on the one address it is given).
"""

from __future__ import annotations

import datetime
import socket

from torch.distributed import TCPStore


def serve_store(host: str, *, timeout_s: float) -> TCPStore:
    """A store that this process serves on a free port of `host`; its address is (`host`, `store.port`)."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.bind((host, 0))
    listener.listen(128)
    port = listener.getsockname()[1]
    return TCPStore(
        host,
        port,
        is_master=True,
        wait_for_workers=False,
        timeout=datetime.timedelta(seconds=timeout_s),
        master_listen_fd=listener.detach(),
    )


def connect_store(host: str, port: int, *, timeout_s: float) -> TCPStore:
    """A client of the store at (`host`, `port`); reads wait at most `timeout_s`."""
    timeout = datetime.timedelta(seconds=timeout_s)
    return TCPStore(host, port, is_master=False, wait_for_workers=False, timeout=timeout)
