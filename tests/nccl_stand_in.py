"""A stand-in for torch's ProcessGroupNCCL, which needs a GPU even to be made: the same methods, over gloo.

Its base class is that of ProcessGroupNCCL, c10d's Backend, so a call that Backend does not take fails here as
it would there. It keeps what the transfer relies on: the operations of a rank run one after the other, a send
ends when its receiver has come to it, tags are ignored, and a peer that is lost is not noticed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
from torch.distributed import Store

_DATA, _TAKEN = 0, 1  # gloo's tags, of what is sent and of its receipt

Gloo: Any = dist.ProcessGroupGloo  # torch's stubs leave out most of its methods


class Options:
    """As far as the transfer sets them."""

    _timeout = timedelta(minutes=30)


class Work:
    """Operations that were enqueued together."""

    def __init__(self, done: Future[None]) -> None:
        self._done = done

    def is_completed(self) -> bool:
        """Return False for ever where an operation has failed: NCCL would wait for the peer."""
        return self._done.done() and self._done.exception() is None

    def wait(self) -> None:
        """Return at once: this waits for a stream, not for the host."""


class StandIn(Gloo):
    """All ranks of a group, each with one stream of operations."""

    Options = Options

    def __init__(self, store: Store, rank: int, size: int, options: Options) -> None:
        of_gloo = Gloo._Options()
        of_gloo._timeout = options._timeout
        of_gloo._devices = [Gloo.create_device(hostname="127.0.0.1")]
        super().__init__(store, rank, size, of_gloo)
        self._store, self._ranks = store, (rank, size)
        self._stream = ThreadPoolExecutor(1)
        self._section: list[Callable[[], None]] | None = None
        self._has_communicator = False

    def eager_connect_single_device(self, device: torch.device) -> None:
        """Make the communicator, for which every rank has to come."""
        assert device.type == "cuda" and device.index is not None
        rank, size = self._ranks
        self._store.set(f"communicator/{rank}", "here")
        self._store.wait([f"communicator/{each}" for each in range(size)])
        self._has_communicator = True

    def _start_coalescing(self) -> None:
        assert self._section is None
        self._section = []

    def _end_coalescing(self) -> Work:
        assert self._section is not None
        calls, self._section = self._section, None
        return Work(self._stream.submit(_run, calls))

    def send(self, tensors: list[torch.Tensor], to: int, tag: int) -> None:
        def run() -> None:
            super(StandIn, self).send(tensors, to, _DATA).wait()
            super(StandIn, self).recv([torch.empty(1)], to, _TAKEN).wait()

        self._note(run)

    def recv(self, tensors: list[torch.Tensor], sender: int, tag: int) -> None:
        def run() -> None:
            super(StandIn, self).recv(tensors, sender, _DATA).wait()
            super(StandIn, self).send([torch.zeros(1)], sender, _TAKEN).wait()

        self._note(run)

    def _note(self, call: Callable[[], None]) -> None:
        assert self._section is not None, "NCCL would make a communicator for this pair of ranks"
        assert self._has_communicator, (
            "NCCL would make the communicator here, for which all ranks have to come"
        )
        self._section.append(call)


def _run(calls: list[Callable[[], None]]) -> None:
    for call in calls:
        call()


@contextmanager
def nccl_stand_in() -> Iterator[None]:
    """Have groups of the backend "nccl" that are made within be stand-ins."""
    with (
        mock.patch.object(dist, "ProcessGroupNCCL", StandIn, create=True),
        mock.patch.object(torch.cuda, "current_device", lambda: 0),
    ):
        yield
