"""Send bytes through PeerGroup: between two ranks, or from one GPU to itself, and compare their digests.

NCCL refuses two ranks on one GPU. With one GPU its one rank sends to itself, where send and receive have to
be in one section of NCCL.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch
from details import leave
from processes import Results, results_of
from torch import Tensor

from rlstack.rendezvous import connect_store, serve_store
from rlstack.transfer.digest import digest
from rlstack.transfer.group import PeerGroup

HOST = "127.0.0.1"
TIMEOUT_S = 60.0
ROUNDS = 3  # the first makes connections


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", choices=["nccl", "gloo"], required=True)
    parser.add_argument("--ranks", type=int, choices=[1, 2], required=True)
    parser.add_argument("--mib", type=int, default=1024)
    given = parser.parse_args()
    num_bytes = given.mib * 2**20
    store = serve_store(HOST, timeout_s=TIMEOUT_S)
    calls = [
        (take_part, (rank, given.ranks, given.backend, num_bytes, store.port)) for rank in range(given.ranks)
    ]
    found = results_of(calls, timeout_s=2 * TIMEOUT_S)
    leave(
        cuda=torch.cuda.is_available() and given.backend == "nccl",
        bytes=num_bytes,
        seconds=max(each["seconds"] for each in found),
        gib_per_s=num_bytes / 2**30 / max(each["seconds"] for each in found),
        equal=all(each["equal"] for each in found),
    )
    if not all(each["equal"] for each in found):
        raise SystemExit("what arrived is not what was sent")


def take_part(rank: int, size: int, backend: str, num_bytes: int, port: int, results: Results[Any]) -> None:
    """One rank, which sends to the next one and receives from the one before."""
    device = torch.device("cuda", rank) if backend == "nccl" else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    store = connect_store(HOST, port, timeout_s=TIMEOUT_S)
    group = PeerGroup(store, rank=rank, size=size, timeout_s=TIMEOUT_S, backend=backend, peer_host=HOST)
    incoming = group.allocate(num_bytes, device=device)
    seconds, equal = [], True
    for number in range(ROUNDS):
        started = time.perf_counter()
        exchange(group, payload(rank, number, num_bytes, device), incoming, rank=rank, size=size)
        seconds.append(time.perf_counter() - started)
        expected = payload((rank - 1) % size, number, num_bytes, device)
        equal &= digest(incoming) == digest(expected) and bool(incoming.equal(expected))
    results.put({"seconds": min(seconds[1:]), "equal": equal})


def exchange(group: PeerGroup, outgoing: Tensor, incoming: Tensor, *, rank: int, size: int) -> None:
    """Send and receive one buffer, and wait for both."""
    deadline = time.monotonic() + TIMEOUT_S
    if size == 1:
        group.section(("send", outgoing, 0, 0), ("recv", incoming, 0, 0)).wait(deadline)
        return
    other = 1 - rank
    calls = [
        lambda: group.send(outgoing, to=other, tag=rank),
        lambda: group.receive(incoming, sender=other, tag=other),
    ]
    # Where a rank's transfers run in order, one sends first and the other receives first.
    handles = [call() for call in (calls if rank == 0 else reversed(calls))]
    for handle in handles:
        handle.wait(deadline)


def payload(rank: int, number: int, num_bytes: int, device: torch.device) -> Tensor:
    """The bytes that `rank` sends in round `number`, the same wherever they are made."""
    generator = torch.Generator(device).manual_seed(1000 * rank + number)
    words = torch.randint(2**62, (num_bytes // 8,), generator=generator, device=device)
    return words.view(torch.uint8)


if __name__ == "__main__":
    main()
