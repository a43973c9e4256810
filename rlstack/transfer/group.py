"""Process groups between a trainer rank and the engines' workers, outside both sides' own worlds.

Raw groups over a store of their own: neither megatron's nor vLLM's default group has to know the other side.
"""

from __future__ import annotations

import datetime
import socket
import time
from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import PrefixStore, Store


class TransferError(RuntimeError):
    """A transfer did not happen, or not as it should; the engines keep the weights that they have."""


class BroadcastGroup:
    """One sender, rank 0, and its receivers, ranks 1 to size - 1; `name` keeps groups of one store apart.

    `peer_host` is an address of the other side: gloo listens on the address from which it is reached, so a
    transfer within one machine stays on loopback. Making one blocks until all have joined.
    """

    def __init__(
        self, store: Store, *, name: str, rank: int, size: int, timeout_s: float, backend: str, peer_host: str
    ) -> None:
        self._name = name
        self._timeout = datetime.timedelta(seconds=timeout_s)
        scoped = PrefixStore(f"{name}/group", store)
        make = {"gloo": _gloo_group, "nccl": _nccl_group}[backend]
        self._group = make(scoped, rank, size, timeout=self._timeout, peer_host=peer_host)

    def broadcast(self, buffer: torch.Tensor, *, what: str) -> None:
        """Fill `buffer` of ranks 1 and up with that of rank 0; `what` names it in the error.

        Raises TransferError when a peer is lost or too slow. The group is of no use after that.
        """
        try:
            self._group.broadcast(buffer, 0).wait(self._timeout)
        except RuntimeError as error:
            raise TransferError(f"{self._name}: {what} did not get through: {error}") from error


def meet(store: Store, *, place: str, me: str, others: Mapping[str, str], timeout_s: float) -> None:
    """Wait until everyone has arrived at `place`.

    `me` and the keys of `others` are short unique names; the values say who that is. Collectives cannot tell
    who failed to come, so a round of ours is preceded by this.

    Raises TransferError naming those who are missing after `timeout_s`.
    """
    store.set(f"{place}/{me}", "here")
    deadline = time.monotonic() + timeout_s
    for i, (key, who) in enumerate(others.items()):
        left_s = max(deadline - time.monotonic(), 0.001)
        try:
            store.wait([f"{place}/{key}"], datetime.timedelta(seconds=left_s))
        except dist.DistStoreError as error:
            late = list(others.items())[i + 1 :]
            missing = [who, *(w for k, w in late if not store.check([f"{place}/{k}"]))]
            raise TransferError(f"{place}: waited {timeout_s:g} s for {', '.join(missing)}") from error


# torch's stubs leave out the options and the methods of these classes, hence Any.
def _gloo_group(store: Store, rank: int, size: int, *, timeout: datetime.timedelta, peer_host: str) -> Any:
    gloo: Any = dist.ProcessGroupGloo
    options = gloo._Options()
    options._timeout = timeout
    options._devices = [gloo.create_device(hostname=_address_towards(peer_host))]
    return gloo(store, rank, size, options)


def _nccl_group(store: Store, rank: int, size: int, *, timeout: datetime.timedelta, peer_host: str) -> Any:
    nccl: Any = dist.ProcessGroupNCCL
    options = nccl.Options()
    options._timeout = timeout
    return nccl(store, rank, size, options)


def _address_towards(host: str) -> str:
    """This machine's address on the route to `host`; nothing is sent."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((host, 1))
        return str(probe.getsockname()[0])
