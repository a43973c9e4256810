"""One of two processes of a group: python stranger_job.py FOLDER PORT RANK KIND.

A `rank` knows the run's secret and leaves in FOLDER/RANK.json what became of each collective. A `stranger`
has joined the group without it, as another user where it can, and sends pickles that leave a marker there.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch.distributed import distributed_c10d

from rlstack.collectives import demand_proof, gather_json
from rlstack.errors import StrangerError
from rlstack.rendezvous import connect_store

NOBODY = 65534


class Touch:
    """Leaves a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self._path,))


class Blind:
    """Unpickles nothing, for it may only be rank 0 that does."""

    def __init__(self, file: Any) -> None:
        pass

    def load(self) -> None:
        pass


def all_gather(thing: Any, rank: int) -> Any:
    found = [None, None]
    dist.all_gather_object(found, thing)
    return found[1]


def gather(thing: Any, rank: int) -> Any:
    found = [None, None]
    dist.gather_object(thing, found if rank == 0 else None, dst=0)
    return found[1]


def broadcast(thing: Any, rank: int) -> Any:
    found = [thing]
    dist.broadcast_object_list(found, src=1)
    return found[0]


def scatter(thing: Any, rank: int) -> Any:
    found = [None]
    dist.scatter_object_list(found, [thing, thing] if rank == 1 else None, src=1)
    return found[0]


def send(thing: Any, rank: int) -> Any:
    found = [thing]
    if rank == 1:
        dist.send_object_list(found, dst=0)
    else:
        dist.recv_object_list(found, src=1)
    return found[0]


def json_of(thing: Any, rank: int) -> Any:
    return gather_json(thing)[1]


COLLECTIVES: dict[str, Callable[[Any, int], Any]] = {
    "all_gather": all_gather,
    "gather": gather,
    "broadcast": broadcast,
    "scatter": scatter,
    "send": send,
    "json": json_of,
}


def join(port: int, rank: int) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    limit_s = 60
    store = connect_store("127.0.0.1", port, timeout_s=limit_s)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2, timeout=timedelta(seconds=limit_s))


def be_a_rank(folder: Path, port: int, rank: int) -> None:
    demand_proof()
    join(port, rank)
    found = {}
    for name, call in COLLECTIVES.items():
        try:
            found[name] = call([f"from rank {rank}"], rank)
        except StrangerError as error:
            found[name] = f"refused: {error}"
    (folder / f"{rank}.json").write_text(json.dumps(found))


def be_a_stranger(folder: Path, port: int, rank: int) -> None:
    if os.getuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    torchs: Any = distributed_c10d
    torchs._unpickler = Blind
    join(port, rank)
    for name, call in COLLECTIVES.items():
        (all_gather if name == "json" else call)(Touch(folder / name), rank)


if __name__ == "__main__":
    role = {"rank": be_a_rank, "stranger": be_a_stranger}[sys.argv[4]]
    role(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
    dist.destroy_process_group()
