"""Where processes find each other: a key-value store, as a file of this user's or listening on one address.

A store that listens gives all it holds to whoever connects, and takes what he gives. Processes of one machine
that meet once use a file. Its readers look again every 10 ms, and do not notice when the others have gone, so
the weight transfer, which exchanges words for each bucket and is given up when its driver says so, listens.

torch's own TCPStore server binds to every interface; handing it a socket that is bound already keeps it on
loopback (or on the one address it is given).
"""

from __future__ import annotations

import datetime
import tempfile
from collections.abc import Sequence
from pathlib import Path

from torch.distributed import DistNetworkError, FileStore, TCPStore

from rlstack.ports import listen

CONNECT_S = 60.0  # for a connection to a store, through a network that may stand still for a while


def private_place() -> Path:
    """Where no other user of this machine gets: a path for store_in, in a new folder."""
    return Path(tempfile.mkdtemp(prefix="rlstack-ranks-")) / "store"


def store_in(file: Path, *, timeout_s: float) -> FileStore:
    """The store that all processes have who open `file`; reads wait at most `timeout_s`."""
    store = FileStore(str(file))
    store.set_timeout(datetime.timedelta(seconds=timeout_s))
    return store


def serve_store(host: str, *, timeout_s: float, port_range: Sequence[int] | None = None) -> TCPStore:
    """A store that this process serves on a free port of `host`; its address is (`host`, `store.port`).

    port_range: the first and the last port that it may take (cluster.port_range); None: any.

    Raises RuntimeError if none of them is free.
    """
    listener = listen(host, port_range)
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
    """A client of the store at (`host`, `port`), which is served already; reads wait at most `timeout_s`.

    Raises ConnectionError if it is not reached within CONNECT_S, or half of `timeout_s` where that is less:
    sooner than those give up who wait for this process there, so that the error of the process that cannot
    connect comes first.
    """
    limit_s = min(CONNECT_S, timeout_s / 2)
    limit = datetime.timedelta(seconds=limit_s)
    try:
        store = TCPStore(host, port, is_master=False, wait_for_workers=False, timeout=limit)
    except DistNetworkError as error:
        raise ConnectionError(
            f"cannot connect to {host} port {port} within {limit_s:g} s: open the ports between the nodes "
            "(those of cluster.port_range), or see whether the process there has ended"
        ) from error
    store.set_timeout(datetime.timedelta(seconds=timeout_s))
    return store
