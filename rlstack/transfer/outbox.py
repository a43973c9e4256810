"""A trainer rank's end of a round: weights are packed, sealed and sent, several buckets at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from rlstack.transfer.arena import seal, sealed_bytes, window, windows
from rlstack.transfer.layout import shape
from rlstack.transfer.move_buckets import NUM_SLOTS, Delivery


class Handle(Protocol):
    """A transfer under way."""

    def wait(self, deadline: float) -> None: ...


class Outgoing(Protocol):
    """The part of PeerGroup that an outbox needs."""

    def send(self, buffer: Tensor, *, to: int, tag: int) -> Handle: ...


class Outbox:
    """Sends the `deliveries` of one source, in their order, through `channel`."""

    def __init__(
        self,
        deliveries: Sequence[Delivery],
        channel: Outgoing,
        *,
        dtypes: Mapping[str, torch.dtype],
        num_sources: int,
        device: torch.device,
    ) -> None:
        self._deliveries = deliveries
        self._channel = channel
        self._num_sources = num_sources
        sizes = [sealed_bytes(delivery.bucket) for delivery in deliveries]
        num_slots = min(NUM_SLOTS, len(sizes))
        # Zeros, so that the padding between moves never is somebody's old memory.
        slots = [torch.zeros(max(sizes), dtype=torch.uint8, device=device) for _ in range(num_slots)]
        self._places = {id(delivery.bucket): i for i, delivery in enumerate(deliveries)}
        self._buffers = [slots[i % num_slots][:size] for i, size in enumerate(sizes)]
        self._windows = [
            windows(delivery.bucket, buffer, dtypes)
            for delivery, buffer in zip(deliveries, self._buffers, strict=True)
        ]

    def send(
        self,
        tensor_of: Callable[[str], Tensor],
        *,
        version: int,
        deadline: float,
        deliveries: Sequence[Delivery] | None = None,
    ) -> list[str]:
        """Send `version`; `tensor_of` takes the names of the sources' views.

        deliveries: other ones for this time, in the order of their buckets, which are some of those that were
        given before; None: those.

        Goes on with the other receivers where one is lost, so that they are not kept waiting. Returns what
        went wrong, [] if everything has gone.
        """
        in_flight: list[tuple[Delivery, Handle] | None] = [None] * NUM_SLOTS
        lost: dict[int, str] = {}

        def settle(slot: int) -> None:
            if (flight := in_flight[slot]) is not None:
                in_flight[slot] = None
                delivery, handle = flight
                try:
                    handle.wait(deadline)
                except RuntimeError as error:
                    lost.setdefault(delivery.receiver, self._trouble(delivery, version, error))

        for delivery in self._deliveries if deliveries is None else deliveries:
            i = self._places[id(delivery.bucket)]
            settle(i % NUM_SLOTS)
            if delivery.receiver in lost:
                continue
            self._pack(i, tensor_of, version)
            try:
                handle = self._channel.send(self._buffers[i], to=delivery.receiver, tag=delivery.tag)
                in_flight[i % NUM_SLOTS] = delivery, handle
            except RuntimeError as error:
                lost[delivery.receiver] = self._trouble(delivery, version, error)
        for slot in range(NUM_SLOTS):
            settle(slot)
        return list(lost.values())

    @torch.no_grad()
    def _pack(self, i: int, tensor_of: Callable[[str], Tensor], version: int) -> None:
        bucket = self._deliveries[i].bucket
        sources = [
            window(tensor_of(move.source_view.tensor), move.source_view, shape(move.box))
            for move in bucket.moves
        ]
        torch._foreach_copy_(self._windows[i], sources)  # one kernel on a GPU; casts to the wire's dtype
        seal(self._buffers[i], bucket, version=version)

    def _trouble(self, delivery: Delivery, version: int, error: RuntimeError) -> str:
        what = delivery.describe(version=version, num_sources=self._num_sources)
        return f"{what} did not get through: {error}"
