"""From trainer shards straight into engine shards: every byte goes once, from one that has it to one that
needs it, and is verified before anything is handed on.

Both ends work in a thread of their own between `begin` and `fence` or `finish`: the trainer goes on with its
next forward and backward, the engine generates with the weights that it has.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence, Set
from contextlib import AbstractContextManager
from dataclasses import replace

import torch
from torch import Tensor

from rlstack.rendezvous import connect_store
from rlstack.transfer.arena import sealed_bytes
from rlstack.transfer.background import Background
from rlstack.transfer.errors import TransferError
from rlstack.transfer.group import Meetings, PeerGroup, meet
from rlstack.transfer.inbox import Arrival, Channel, Inbox
from rlstack.transfer.ipc import IpcGroup
from rlstack.transfer.layout import Piece
from rlstack.transfer.move_buckets import Delivery, member_name
from rlstack.transfer.negotiation import LayoutCache, Member, negotiate, published_shapes, reshard_store
from rlstack.transfer.outbox import Outbox

__all__ = ["ReshardReceiver", "ReshardSender", "published_shapes"]


class ReshardSender:
    """Trainer rank `source` of `num_sources`.

    pieces: what it holds; tensor_of: the live tensors that the pieces' views name; backend: gloo, nccl or
    ipc, which is for processes of one host; cache: what this process has learnt when it opened another one.

    Raises TransferError if someone does not come within `timeout_s`, or if the layouts do not fit together.
    """

    def __init__(
        self,
        *,
        store_host: str,
        store_port: int,
        source: int,
        num_sources: int,
        num_receivers: int,
        pieces: Sequence[Piece],
        tensor_of: Callable[[str], Tensor],
        bucket_bytes: int,
        timeout_s: float,
        backend: str,
        cache: LayoutCache | None = None,
    ) -> None:
        member = Member(source, num_sources, num_receivers)
        self._link = _Link(store_host, store_port, member, timeout_s=timeout_s)
        ways = self._link.open(
            pieces, dtypes={}, bucket_bytes=bucket_bytes, backend=backend, cache=cache or LayoutCache()
        )
        self._names = list(
            dict.fromkeys(move.source_view.tensor for way in ways for move in way.bucket.moves)
        )
        self._tensor_of = tensor_of
        device = tensor_of(self._names[0]).device if ways else torch.device("cpu")
        self._outbox = Outbox(
            ways, self._link.group, dtypes=self._link.dtypes, num_sources=num_sources, device=device
        )
        self._stream = _SideStream(device)
        self._round: Background[dict[str, float]] | None = None

    def begin(self, version: int, receivers: Sequence[int] | None = None) -> None:
        """Start to send the weights as they are, which must stay as they are until `fence`.

        receivers: those that take part in this round, and get everything from the sources; None: all.

        Exchanging a parameter's storage for another one is harmless; writing to it is not.
        """
        assert self._round is None, "fence comes first"
        self._stream.follow()
        tensors = {name: self._tensor_of(name) for name in self._names}
        self._round = Background(
            lambda: self._send(tensors, version, receivers), name=f"send version {version}"
        )

    def fence(self) -> dict[str, float]:
        """Wait until what was begun has gone; {} if nothing was.

        Returns `bytes` (padding and trailers apart), `wire_bytes`, `send_s` and `fence_s`, the wait in here.

        Raises TransferError if a receiver does not come, or if it is lost or too slow.
        """
        if self._round is None:
            return {}
        started = time.perf_counter()
        pending, self._round = self._round, None
        stats = pending.result()
        return {**stats, "fence_s": time.perf_counter() - started}

    def settle(self) -> None:
        """Wait until the weights may be written to, and this may be dropped, whatever became of the round.

        `fence` still says that.
        """
        if self._round is not None:
            self._round.wait()

    def send(self, version: int) -> dict[str, float]:
        """`begin` and `fence`."""
        self.begin(version)
        return self.fence()

    def _send(
        self, tensors: Mapping[str, Tensor], version: int, receivers: Sequence[int] | None
    ) -> dict[str, float]:
        deadline = self._link.start(version, receivers)
        started = time.perf_counter()
        ways = self._link.ways(receivers)
        with self._stream.current():
            troubles = self._outbox.send(
                tensors.__getitem__, version=version, deadline=deadline, deliveries=ways
            )
        self._link.end(troubles, lost=bool(troubles))
        plan = self._link.plan
        return {
            "bytes": float(sum(plan.num_bytes(move) for way in ways for move in way.bucket.moves)),
            "wire_bytes": float(sum(sealed_bytes(way.bucket) for way in ways)),
            "send_s": time.perf_counter() - started,
        }


class ReshardReceiver:
    """Engine worker `receiver` of `num_receivers`, counted over the workers of all engines.

    pieces: what it holds; dtypes: in what each tensor travels, as in "float32"; backend and cache: as the
    senders'.

    Raises TransferError if someone does not come within `timeout_s`, or if the layouts do not fit together.
    """

    stats: dict[str, float]  # of the last round that `finish` has returned

    def __init__(
        self,
        *,
        store_host: str,
        store_port: int,
        receiver: int,
        num_sources: int,
        num_receivers: int,
        pieces: Sequence[Piece],
        dtypes: Mapping[str, str],
        bucket_bytes: int,
        timeout_s: float,
        backend: str,
        device: torch.device,
        cache: LayoutCache | None = None,
    ) -> None:
        member = Member(num_sources + receiver, num_sources, num_receivers)
        self._link = _Link(store_host, store_port, member, timeout_s=timeout_s)
        ways = self._link.open(
            pieces, dtypes=dtypes, bucket_bytes=bucket_bytes, backend=backend, cache=cache or LayoutCache()
        )
        self._inbox = Inbox(
            [way for way in ways if way.receiver == member.rank],
            [way for way in ways if way.sender == member.rank],
            self._link.group,
            dtypes=self._link.dtypes,
            num_sources=num_sources,
            device=device,
        )
        self._num_bytes = self._link.plan.bytes_received(receiver)
        self._stream = _SideStream(device)
        self._round: tuple[int, Background[dict[str, float]]] | None = None
        self.stats = {}

    def begin(self, version: int, receivers: Sequence[int] | None = None) -> None:
        """Start to take in `version` beside the live weights; what the last `finish` gave is overwritten.

        receivers: as of ReshardSender.begin; this is one of them.
        """
        assert self._round is None, "finish comes first"
        self._stream.follow()
        self._round = (
            version,
            Background(lambda: self._receive(version, receivers), name=f"receive version {version}"),
        )

    def finish(self, version: int) -> list[Arrival]:
        """Wait for `version`, which was begun: all of it, verified, or nothing.

        Returns (view of the local tensor, its shape, its new content); sets `stats`: `bytes` (padding and
        trailers apart), `wire_bytes` and `receive_s`.

        Raises TransferError if a sender does not come, is lost or too slow, or if a bucket is not what was
        sent. After a bad bucket, and only then, the next round can go on as usual.
        """
        assert self._round is not None, "begin comes first"
        (begun, pending), self._round = self._round, None
        stats = pending.result()
        if begun != version:
            raise TransferError(f"version {version} was expected, but it was {begun} that was begun")
        self.stats = stats
        return self._inbox.arrivals

    def settle(self) -> None:
        """Wait until this may be dropped, whatever became of the round; `finish` still says that."""
        if self._round is not None:
            self._round[1].wait()

    def _receive(self, version: int, receivers: Sequence[int] | None) -> dict[str, float]:
        deadline = self._link.start(version, receivers)
        started = time.perf_counter()
        with self._stream.current():
            troubles, lost = self._inbox.receive(
                version=version, deadline=deadline, directly=receivers is not None
            )
        self._link.end(troubles, lost=lost)
        return {
            "bytes": float(self._num_bytes),
            "wire_bytes": float(self._inbox.num_bytes),
            "receive_s": time.perf_counter() - started,
        }


class _Link:
    """What both ends have in common: the store, the plan, the group, and the state that they are in."""

    def __init__(self, host: str, port: int, member: Member, *, timeout_s: float) -> None:
        self._host = host
        self._member = member
        self._timeout_s = timeout_s
        self._store = reshard_store(connect_store(host, port, timeout_s=timeout_s))
        self._broken: str | None = None

    def open(
        self,
        pieces: Sequence[Piece],
        *,
        dtypes: Mapping[str, str],
        bucket_bytes: int,
        backend: str,
        cache: LayoutCache,
    ) -> list[Delivery]:
        """Agree on a plan and connect; the deliveries in which this member has a part, in their order."""
        member = self._member
        agreed = negotiate(
            self._store,
            member,
            pieces,
            dtypes=dtypes,
            bucket_bytes=bucket_bytes,
            timeout_s=self._timeout_s,
            cache=cache,
        )
        self.plan, self.dtypes, self._ways = agreed.plan, agreed.dtypes, agreed.deliveries
        peers = self._peers(self._ways)
        self._meetings = Meetings(self._store, me=member.key, others=peers, timeout_s=self._timeout_s)
        ever = [*self._ways, *self.ways(range(member.num_receivers))]
        senders = {way.sender for way in ever} - {member.rank}
        receivers = {way.receiver for way in ever} - {member.rank}
        self.group = self._connect(senders, receivers, backend=backend)
        return self._ways

    def ways(self, receivers: Sequence[int] | None) -> list[Delivery]:
        """This member's deliveries if only `receivers` take part, without relays; None: if all do."""
        if receivers is None:
            return self._ways
        member = self._member
        if member.rank >= member.num_sources:
            incoming = (way for way in self._ways if way.receiver == member.rank)
            return [replace(way, sender=way.bucket.source) for way in incoming]
        return [
            replace(way, receiver=member.num_sources + receiver)
            for way in self._ways
            for receiver in receivers
            if self.plan.first(receiver) == way.bucket.receiver
        ]

    def _peers(self, ways: Sequence[Delivery]) -> dict[str, str]:
        ranks = {rank for way in ways for rank in (way.sender, way.receiver)}
        return self._member.named(ranks - {self._member.rank})

    def _connect(self, senders: Set[int], receivers: Set[int], *, backend: str) -> Channel:
        member = self._member
        if backend == "ipc":
            return IpcGroup(
                self._store,
                rank=member.rank,
                senders=senders,
                receivers={rank: member_name(rank, member.num_sources) for rank in sorted(receivers)},
                timeout_s=self._timeout_s,
            )
        return PeerGroup(
            self._store,
            rank=member.rank,
            size=member.num_sources + member.num_receivers,
            timeout_s=self._timeout_s,
            backend=backend,
            peer_host=self._host,
        )

    def start(self, version: int, receivers: Sequence[int] | None) -> float:
        """Wait for those with whom bytes are exchanged; the round's deadline, of time.monotonic()."""
        if self._broken:
            raise TransferError(
                f"version {version} cannot be transferred since this happened: {self._broken}"
            )
        deadline = time.monotonic() + self._timeout_s
        if receivers is None:
            self._meetings.at(f"version{version}")
        else:
            place, others = f"version{version} of some", self._peers(self.ways(receivers))
            meet(self._store, place=place, me=self._member.key, others=others, timeout_s=self._timeout_s)
        return deadline

    def end(self, troubles: Sequence[str], *, lost: bool) -> None:
        """Raise TransferError if there were `troubles`; with a peer `lost` there will be no other round."""
        if not troubles:
            return
        first, *rest = troubles
        message = f"{first} (and {len(rest)} more)" if rest else first
        if lost:
            self._broken = message
        raise TransferError(message)


class _SideStream:
    """On a GPU a stream beside the one that computes; on the CPU nothing."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def follow(self) -> None:
        """What is enqueued here from now on comes after what the caller's stream has at this moment."""
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream(self._stream.device))

    def current(self) -> AbstractContextManager[object]:
        return torch.cuda.stream(self._stream) if self._stream is not None else contextlib.nullcontext()
