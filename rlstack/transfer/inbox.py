"""An engine worker's end of a round: buckets come beside the live weights, are verified and passed on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from rlstack.transfer.arena import arena, damage, windows
from rlstack.transfer.layout import View, shape
from rlstack.transfer.move_buckets import Delivery
from rlstack.transfer.outbox import Handle, Outgoing

Arrival = tuple[View, tuple[int, ...], Tensor]  # window of the receiver's tensor, its shape, its new content

# On a channel that executes in order, receives that are posted ahead hold up the relaying of what has come.
_NUM_AHEAD_IN_ORDER = 2


class Channel(Outgoing, Protocol):
    """The part of PeerGroup that an inbox needs."""

    ordered: bool

    def allocate(self, num_bytes: int, *, device: torch.device) -> Tensor: ...

    def receive(self, buffer: Tensor, *, sender: int, tag: int) -> Handle: ...


class Inbox:
    """Takes in `incoming` and sends on `relayed`, a subset with this rank as the sender."""

    def __init__(
        self,
        incoming: Sequence[Delivery],
        relayed: Sequence[Delivery],
        channel: Channel,
        *,
        dtypes: Mapping[str, torch.dtype],
        num_sources: int,
        device: torch.device,
    ) -> None:
        self._incoming = incoming
        self._relayed = {delivery.tag: delivery for delivery in relayed}
        self._channel = channel
        self._num_sources = num_sources
        buckets = [delivery.bucket for delivery in incoming]
        self._buffers = arena(buckets, allocate=partial(channel.allocate, device=device))
        self.num_bytes = sum(buffer.numel() for buffer in self._buffers)  # trailers and padding included
        self.arrivals: list[Arrival] = [
            (move.receiver_view, shape(move.box), data)
            for delivery, buffer in zip(incoming, self._buffers, strict=True)
            for move, data in zip(
                delivery.bucket.moves, windows(delivery.bucket, buffer, dtypes), strict=True
            )
        ]

    def receive(self, *, version: int, deadline: float, directly: bool = False) -> tuple[list[str], bool]:
        """Take in `version`; after that `arrivals` is its content, if nothing went wrong.

        directly: all of it comes from the sources, and nothing is relayed.

        A damaged bucket does not keep the others from coming, so that the next round finds the channel empty.
        Returns what went wrong, and whether a peer was lost, after which the channel is of no use.
        """
        if not directly:
            return _Round(self, self._incoming, self._relayed, version, deadline).run()
        incoming = [replace(delivery, sender=delivery.bucket.source) for delivery in self._incoming]
        return _Round(self, incoming, {}, version, deadline).run()


class _Round:
    def __init__(
        self,
        inbox: Inbox,
        incoming: Sequence[Delivery],
        relayed: Mapping[int, Delivery],
        version: int,
        deadline: float,
    ) -> None:
        self._inbox = inbox
        self._incoming = incoming
        self._relayed = relayed
        self._version = version
        self._deadline = deadline
        self._lost: set[int] = set()
        self._troubles: list[str] = []
        self._posted: list[Handle | None] = []
        self._passed_on: list[tuple[Delivery, Handle]] = []

    def run(self) -> tuple[list[str], bool]:
        incoming = self._incoming
        ahead = _NUM_AHEAD_IN_ORDER if self._inbox._channel.ordered and self._relayed else len(incoming)
        for i, delivery in enumerate(incoming):
            for later in range(len(self._posted), min(i + ahead, len(incoming))):
                self._posted.append(self._post(incoming[later], self._inbox._buffers[later]))
            self._take(delivery, self._posted[i], self._inbox._buffers[i])
        for delivery, handle in self._passed_on:
            self._settle(delivery, handle, delivery.receiver)
        return self._troubles, bool(self._lost)

    def _post(self, delivery: Delivery, buffer: Tensor) -> Handle | None:
        try:
            return self._inbox._channel.receive(buffer, sender=delivery.sender, tag=delivery.tag)
        except RuntimeError as error:
            self._lose(delivery, delivery.sender, error)
            return None

    def _take(self, delivery: Delivery, handle: Handle | None, buffer: Tensor) -> None:
        if handle is None or not self._settle(delivery, handle, delivery.sender):
            return
        if found := damage(buffer, delivery.bucket, version=self._version):
            self._troubles.append(f"{self._describe(delivery)} is not what was sent: {found}")
        # Damaged or not: whoever comes next sees for itself, and must not be kept waiting.
        if (onward := self._relayed.get(delivery.tag)) and onward.receiver not in self._lost:
            try:
                handle = self._inbox._channel.send(buffer, to=onward.receiver, tag=onward.tag)
                self._passed_on.append((onward, handle))
            except RuntimeError as error:
                self._lose(onward, onward.receiver, error)

    def _settle(self, delivery: Delivery, handle: Handle, peer: int) -> bool:
        if peer in self._lost:
            return False
        try:
            handle.wait(self._deadline)
        except RuntimeError as error:
            self._lose(delivery, peer, error)
            return False
        return True

    def _lose(self, delivery: Delivery, peer: int, error: RuntimeError) -> None:
        if peer not in self._lost:
            self._lost.add(peer)
            self._troubles.append(f"{self._describe(delivery)} did not get through: {error}")

    def _describe(self, delivery: Delivery) -> str:
        return delivery.describe(version=self._version, num_sources=self._inbox._num_sources)
