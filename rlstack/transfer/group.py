"""How a trainer rank and the engines' workers meet, agree and connect, outside both sides' own worlds.

Raw groups over a store of their own: neither megatron's nor vLLM's default group has to know the other side.
"""

from __future__ import annotations

import datetime
import re
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import PrefixStore, Store

from rlstack.transfer.errors import TransferError

GIVEN_UP = "the store where all meet is gone: the driver has given the transfer up, or has ended"
_FINE = "fine"
_POLL_S = 0.0005


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
        self._group = _connect(
            backend, scoped, rank=rank, size=size, timeout=self._timeout, peer_host=peer_host
        )

    def broadcast(self, buffer: torch.Tensor, *, what: str) -> None:
        """Fill `buffer` of ranks 1 and up with that of rank 0; `what` names it in the error.

        Raises TransferError when a peer is lost or too slow. The group is of no use after that.
        """
        try:
            self._group.broadcast(buffer, 0).wait(self._timeout)
        except RuntimeError as error:
            raise TransferError(f"{self._name}: {what} did not get through: {error}") from error


class Pending:
    """A buffer on its way; it must not be touched until `wait` has returned."""

    def __init__(self, work: Any, *, polled: bool) -> None:
        self._work = work
        self._polled = polled

    def wait(self, deadline: float) -> None:
        """Until the buffer has gone, or has come. `deadline` is of time.monotonic().

        Raises RuntimeError if the peer is lost or the deadline passes; the group is of no use after that.
        """
        if self._polled:
            # nccl's own wait is for a stream, not for the host.
            while not self._work.is_completed():
                if time.monotonic() > deadline:
                    raise TransferError("nothing came of it within the limit")
                time.sleep(_POLL_S)
            self._work.wait()
            return
        try:
            self._work.wait(until(deadline))
        except RuntimeError as error:
            raise TransferError(_first_sentence(str(error))) from error


class PeerGroup:
    """`size` ranks, each of which can send to each; making one blocks until all have joined.

    `ordered` says that a rank's transfers are executed one after the other: all ranks must then follow one
    order. Tags tell transfers apart where they are not.
    """

    def __init__(
        self, store: Store, *, rank: int, size: int, timeout_s: float, backend: str, peer_host: str
    ) -> None:
        self.ordered = backend == "nccl"
        # nccl's watchdog ends the process; ours, which only ends the round, has to come first.
        timeout = datetime.timedelta(seconds=timeout_s * (2 if self.ordered else 1))
        scoped = PrefixStore("peers", store)
        self._group = _connect(backend, scoped, rank=rank, size=size, timeout=timeout, peer_host=peer_host)

    def allocate(self, num_bytes: int, *, device: torch.device) -> torch.Tensor:
        """Zeros, uint8, for what this rank receives."""
        return torch.zeros(num_bytes, dtype=torch.uint8, device=device)

    def send(self, buffer: torch.Tensor, *, to: int, tag: int) -> Pending:
        """Let `buffer` go to rank `to`. Raises RuntimeError if that is lost already."""
        return self._start("send", buffer, to, tag)

    def receive(self, buffer: torch.Tensor, *, sender: int, tag: int) -> Pending:
        """Let `buffer` come from rank `sender`. Raises RuntimeError if that is lost already."""
        return self._start("recv", buffer, sender, tag)

    def section(self, *transfers: tuple[str, torch.Tensor, int, int]) -> Pending:
        """Start several transfers at once, where `ordered`: none of them waits for another.

        transfers: each "send" or "recv", a buffer, the peer's rank and a tag. A rank can send to itself.
        """
        # Outside a coalesced section nccl would make a communicator for each pair of ranks.
        self._group._start_coalescing()
        for method, buffer, peer, tag in transfers:
            getattr(self._group, method)([buffer], peer, tag)
        return Pending(self._group._end_coalescing(), polled=True)

    def _start(self, method: str, buffer: torch.Tensor, peer: int, tag: int) -> Pending:
        if self.ordered:
            return self.section((method, buffer, peer, tag))
        return Pending(getattr(self._group, method)([buffer], peer, tag), polled=False)


def meet(store: Store, *, place: str, me: str, others: Mapping[str, str], timeout_s: float) -> None:
    """Wait until everyone has arrived at `place`.

    `me` and the keys of `others` are short unique names; the values say who that is. Collectives cannot tell
    who failed to come, so a round of ours is preceded by this.

    Raises TransferError naming those who are missing after `timeout_s`.
    """
    try:
        store.set(f"{place}/{me}", "here")
    except dist.DistNetworkError as error:
        raise TransferError(f"{place}: {GIVEN_UP}") from error
    wait_for_all(store, place=place, others=others, timeout_s=timeout_s)


def wait_for_all(store: Store, *, place: str, others: Mapping[str, str], timeout_s: float) -> list[str]:
    """Wait until each of `others` (as in `meet`) has left something at `place`; the keys of that.

    Raises TransferError naming those who have left nothing after `timeout_s`.
    """
    keys = [f"{place}/{key}" for key in others]
    if not keys:
        return keys
    try:
        store.wait(keys, datetime.timedelta(seconds=timeout_s))
    except dist.DistStoreError as error:
        missing = [who for key, who in zip(keys, others.values(), strict=True) if not store.check([key])]
        if missing:
            raise TransferError(f"{place}: waited {timeout_s:g} s for {', '.join(missing)}") from error
    except dist.DistNetworkError as error:
        raise TransferError(f"{place}: {GIVEN_UP}") from error
    return keys


def collect(store: Store, *, place: str, others: Mapping[str, str], timeout_s: float) -> list[str]:
    """The values that `others` have left at `place`; waits, and raises, as `wait_for_all`."""
    keys = wait_for_all(store, place=place, others=others, timeout_s=timeout_s)
    return [value.decode() for value in store.multi_get(keys)] if keys else []


class Meetings:
    """Rounds in which `me` meets the same `others`, as in `meet`; the store keeps the last one only."""

    def __init__(self, store: Store, *, me: str, others: Mapping[str, str], timeout_s: float) -> None:
        self._store = store
        self._me = me
        self._others = others
        self._timeout_s = timeout_s
        self._last: str | None = None

    def at(self, place: str) -> None:
        """As `meet`. Every one of them comes to the same places in the same order."""
        meet(self._store, place=place, me=self._me, others=self._others, timeout_s=self._timeout_s)
        last, self._last = self._last, place
        if last is not None and last != place:  # where nobody waits any more, because all have come here
            try:
                self._store.delete_key(f"{last}/{self._me}")
            except dist.DistNetworkError as error:
                raise TransferError(f"{place}: {GIVEN_UP}") from error


class Agreement:
    """All receivers land a version, or none does: one damaged bucket must not leave a model of two versions.

    `receivers` are those that take part, counted over all engines; `receiver` is this one.
    """

    def __init__(self, store: Store, *, receiver: int, receivers: Sequence[int], timeout_s: float) -> None:
        self._store = PrefixStore("agreement", store)
        self._receiver = receiver
        self._receivers = receivers
        self._timeout = datetime.timedelta(seconds=timeout_s)
        self._num_rounds = 0

    def reach(self, trouble: Exception | None, *, what: str) -> None:
        """Publish what became of this receiver's part of `what`, and learn what became of the others'.

        Every receiver calls this once per round. Raises `trouble` if there is any; TransferError if another
        receiver has trouble or says nothing within the time limit.
        """
        self._num_rounds += 1
        store, number = self._store, self._num_rounds
        result = f"result{number}"
        if trouble:
            store.compare_set(result, "", f"engine worker {self._receiver} refuses it: {trouble}")
            raise trouble
        store.set(f"receiver{self._receiver}", str(number))
        if store.add(f"count{number}", 1) == len(self._receivers):
            store.set(result, _FINE)
            # Nobody reads those of the round before any more, because all have come to this one.
            store.delete_key(f"result{number - 1}")
            store.delete_key(f"count{number - 1}")
            return
        if (found := self._result(result, number, what)) != _FINE:
            raise TransferError(f"{what}: {found}")

    def _result(self, key: str, number: int, what: str) -> str:
        try:
            self._store.wait([key], self._timeout)
        except dist.DistStoreError as error:
            if not self._store.check([key]):
                raise TransferError(
                    f"{what}: engine worker {', '.join(self._missing(number))} did not say within "
                    f"{self._timeout.total_seconds():g} s whether everything arrived"
                ) from error
        return self._store.get(key).decode()

    def _missing(self, number: int) -> list[str]:
        """Receivers that have not come to this round."""
        keys = {str(i): f"receiver{i}" for i in self._receivers}
        came = {name for name, key in keys.items() if self._store.check([key])}
        return [name for name, key in keys.items() if name not in came or int(self._store.get(key)) < number]


def until(deadline: float) -> datetime.timedelta:
    """At least a millisecond: for both stores and groups, zero means for ever."""
    return datetime.timedelta(seconds=max(deadline - time.monotonic(), 0.001))


def _first_sentence(text: str) -> str:
    """gloo's messages begin with a line of its source and end with general advice."""
    return re.sub(r"^\[[^]]*\] ", "", text).partition(". ")[0]


# torch's stubs leave out the options and the methods of these classes, hence Any.
def _connect(
    backend: str, store: Store, *, rank: int, size: int, timeout: datetime.timedelta, peer_host: str
) -> Any:
    """Connect `size` ranks. Raises TransferError if the store is gone before all have joined."""
    make = {"gloo": _gloo_group, "nccl": _nccl_group}[backend]
    try:
        return make(store, rank, size, timeout=timeout, peer_host=peer_host)
    except dist.DistNetworkError as error:
        raise TransferError(f"rank {rank} of {size} could not connect to its peers: {GIVEN_UP}") from error


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
    group = nccl(store, rank, size, options)
    # The first transfer would make the communicator, and wait for the ranks that take no part in it.
    group.eager_connect_single_device(torch.device("cuda", torch.cuda.current_device()))
    return group


def _address_towards(host: str) -> str:
    """This machine's address on the route to `host`; nothing is sent."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((host, 1))
        return str(probe.getsockname()[0])
