"""Buckets between processes of one host through memory that both have mapped.

Two ranks on one GPU have no other way, for NCCL refuses them; on the CPU it saves the way through sockets.
A bucket is written once, by its sender, to where its receiver will look at it. The store carries the words
before and after it, one each: where the bucket may be written to, from its receiver, and then that it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import PrefixStore, Store

from rlstack.transfer.errors import TransferError
from rlstack.transfer.group import collect, until
from rlstack.transfer.shared_memory import SharedMemory, open_memory


class IpcGroup:
    """Has the interface of PeerGroup, but no connection that breaks: who is lost is waited for until the end.

    senders: the ranks from which this one gets something; receivers: those to which it gives something, with
    names for messages. Making one blocks until all `receivers` have allocated, so sending in a circle would
    block for ever.

    Raises TransferError if one of them does not within `timeout_s`, or if its memory cannot be mapped.
    """

    ordered = False

    def __init__(
        self,
        store: Store,
        *,
        rank: int,
        senders: Iterable[int],
        receivers: Mapping[int, str],
        timeout_s: float,
    ) -> None:
        self._store = PrefixStore("ipc", store)
        self._rank = rank
        self._senders = tuple(senders)
        self._memory: SharedMemory | None = None
        self._peers: dict[int, Tensor] = {}
        for receiver, who in receivers.items():
            place, me = f"memory{receiver}", {str(rank): who}
            (handle,) = collect(self._store, place=place, others=me, timeout_s=timeout_s)
            self._peers[receiver] = open_memory(handle)

    def allocate(self, num_bytes: int, *, device: torch.device) -> Tensor:
        """Zeros, uint8, for all that this rank receives; once."""
        self._memory = memory = SharedMemory(num_bytes, device=device)
        for sender in self._senders:
            self._store.set(f"memory{self._rank}/{sender}", memory.handle())
        return memory.tensor

    def send(self, buffer: Tensor, *, to: int, tag: int) -> _Sending:
        """Let `buffer` go to rank `to`, at once if that has posted its receive, otherwise when waited for."""
        return _Sending(self._store, f"{to}/{tag}", buffer, self._peers[to])

    def receive(self, buffer: Tensor, *, sender: int, tag: int) -> _Receiving:
        """Let `buffer`, which is part of what was allocated, come from rank `sender`."""
        assert self._memory is not None, "allocate comes first"
        _finish_kernels(buffer)  # those that read what came before
        offset = buffer.data_ptr() - self._memory.tensor.data_ptr()
        return _Receiving(self._store, f"{self._rank}/{tag}", offset)


class _Sending:
    def __init__(self, store: Store, key: str, buffer: Tensor, peer: Tensor) -> None:
        self._store = store
        self._key = key
        self._buffer = buffer
        self._peer = peer
        self._done = False
        if store.check([f"posted/{key}"]):
            self._write()

    def wait(self, deadline: float) -> None:
        """Raises TransferError if the receive has not been posted by `deadline`, of time.monotonic()."""
        if not self._done:
            _wait(self._store, f"posted/{self._key}", deadline)
            self._write()

    def _write(self) -> None:
        offset = int(_take(self._store, f"posted/{self._key}"))
        self._peer.narrow(0, offset, self._buffer.numel()).copy_(self._buffer)
        _finish_kernels(self._buffer)
        self._store.set(f"written/{self._key}", "")
        self._done = True


class _Receiving:
    def __init__(self, store: Store, key: str, offset: int) -> None:
        self._store = store
        self._key = key
        store.set(f"posted/{key}", str(offset))

    def wait(self, deadline: float) -> None:
        """Raises TransferError if nothing has come by `deadline`, of time.monotonic()."""
        _wait(self._store, f"written/{self._key}", deadline)
        _take(self._store, f"written/{self._key}")


def _wait(store: Store, key: str, deadline: float) -> None:
    try:
        store.wait([key], until(deadline))
    except dist.DistStoreError as error:
        # After the deadline, which a lost peer may have used up, what has come from the others still counts.
        if not store.check([key]):
            raise TransferError("nothing came of it within the limit") from error


def _take(store: Store, key: str) -> bytes:
    """Words are deleted when they are heard, so that the next round finds none of this one's."""
    word = store.get(key)
    store.delete_key(key)
    return bytes(word)


def _finish_kernels(tensor: Tensor) -> None:
    """Other processes do not see this one's streams: what is announced to them has to have happened."""
    if tensor.is_cuda:
        torch.cuda.current_stream(tensor.device).synchronize()
