"""The gather transfer: every pipeline stage broadcasts its full tensors, packed, to all engine workers.

The scheme of slime's update_weight_from_distributed.py: the policy gathers a stage's tensors over tensor
parallelism to one rank, the stage's leader, which shares one group with all the workers; each worker takes
what it needs of them. Every bucket carries a digest of its bytes, combined with the version, that is checked
before anything is handed on. Simple rather than fast: a worker receives the whole model whatever its share.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import torch

from rlstack.rendezvous import connect_store
from rlstack.transfer.buckets import Bucket, TensorSpec, plan_buckets
from rlstack.transfer.digest import digest
from rlstack.transfer.errors import TransferError
from rlstack.transfer.group import BroadcastGroup, Meetings

TRAILER_BYTES = 8
_LEADER = 0  # the leader's rank in its stage's group; worker i is rank i + 1


class GatherSender:
    """A policy rank's end. Only the leader of a stage sends; the other ranks have nothing to open.

    `specs` are the stage's tensors as (name, shape, dtype) in the order in which `send` will get them;
    `backend` is gloo or nccl.

    Raises TransferError if a worker does not come within `timeout_s`, naming it.
    """

    def __init__(
        self,
        *,
        store_host: str,
        store_port: int,
        stage: int,
        num_stages: int,
        num_receivers: int,
        is_leader: bool,
        specs: Sequence[tuple[str, Sequence[int], str]],
        bucket_bytes: int,
        timeout_s: float,
        backend: str,
    ) -> None:
        assert 0 <= stage < num_stages
        self._is_leader = is_leader
        if not is_leader:
            return
        self._stage = stage
        workers = {f"worker{i}": f"engine worker {i}" for i in range(num_receivers)}
        self._buckets = plan_buckets(specs, bucket_bytes=bucket_bytes)
        store = connect_store(store_host, store_port, timeout_s=timeout_s)
        store.set(f"stage{stage}/layout", json.dumps([bucket_bytes, [list(s) for s in specs]]))
        self._meetings = Meetings(store, me="leader", others=workers, timeout_s=timeout_s)
        self._meetings.at(f"stage{stage}/open")
        self._group = BroadcastGroup(
            store,
            name=f"stage{stage}",
            rank=_LEADER,
            size=num_receivers + 1,
            timeout_s=timeout_s,
            backend=backend,
            peer_host=store_host,
        )

    def send(self, tensors: Iterable[tuple[str, torch.Tensor]], *, version: int) -> dict[str, float]:
        """Send the stage's full tensors as `version`; returns `bytes` put on the wire and `send_s`.

        A rank that is no leader exhausts `tensors`, because making them is a collective, and sends nothing.

        Raises TransferError if the tensors are not those of the specs or a worker does not come or is lost.
        """
        if not self._is_leader:
            for _ in tensors:
                pass
            return {"bytes": 0.0, "send_s": 0.0}
        started = time.perf_counter()
        self._meetings.at(f"stage{self._stage}/version{version}")
        num_bytes = 0
        source = iter(tensors)
        for index, bucket in enumerate(self._buckets):
            buffer = _fill(bucket, source, version=version)
            self._group.broadcast(buffer, what=f"bucket {index} to the engine workers")
            num_bytes += buffer.numel()
        if (extra := next(source, None)) is not None:
            raise TransferError(f"stage {self._stage}: tensor {extra[0]} is not among those announced")
        return {"bytes": float(num_bytes), "send_s": time.perf_counter() - started}


class GatherReceiver:
    """An engine worker's end: `receiver` of `num_receivers`, counted over the workers of all engines.

    Raises TransferError if a stage's leader does not come within `timeout_s`, naming it.
    """

    def __init__(
        self,
        *,
        store_host: str,
        store_port: int,
        receiver: int,
        num_stages: int,
        num_receivers: int,
        timeout_s: float,
        backend: str,
        device: torch.device,
    ) -> None:
        assert 0 <= receiver < num_receivers
        self._device = device
        store = connect_store(store_host, store_port, timeout_s=timeout_s)
        self._meetings: list[Meetings] = []
        self._buckets: list[list[Bucket]] = []
        self._groups: list[BroadcastGroup] = []
        for stage in range(num_stages):
            leader = {"leader": f"the leader of pipeline stage {stage}"}
            meetings = Meetings(store, me=f"worker{receiver}", others=leader, timeout_s=timeout_s)
            meetings.at(f"stage{stage}/open")
            self._meetings.append(meetings)
            bucket_bytes, specs = json.loads(store.get(f"stage{stage}/layout"))
            self._buckets.append(plan_buckets(specs, bucket_bytes=bucket_bytes))
            self._groups.append(
                BroadcastGroup(
                    store,
                    name=f"stage{stage}",
                    rank=receiver + 1,
                    size=num_receivers + 1,
                    timeout_s=timeout_s,
                    backend=backend,
                    peer_host=store_host,
                )
            )

    @property
    def specs(self) -> list[TensorSpec]:
        """Every tensor that a round brings, stage by stage."""
        return [spec for buckets in self._buckets for bucket in buckets for spec in bucket.specs]

    @property
    def num_bytes(self) -> int:
        """What a round brings over the wire."""
        return sum(bucket.num_bytes + TRAILER_BYTES for buckets in self._buckets for bucket in buckets)

    def receive(self, version: int) -> dict[str, torch.Tensor]:
        """All stages' tensors of `version`, by name: received and verified as a whole, or not at all.

        Raises TransferError if a leader does not come or drops out, or if a bucket is not what was sent.
        """
        tensors: dict[str, torch.Tensor] = {}
        for stage, (buckets, group) in enumerate(zip(self._buckets, self._groups, strict=True)):
            self._meetings[stage].at(f"stage{stage}/version{version}")
            for index, bucket in enumerate(buckets):
                where = f"stage {stage}, bucket {index}"
                buffer = torch.empty(bucket.num_bytes + TRAILER_BYTES, dtype=torch.uint8, device=self._device)
                group.broadcast(buffer, what=f"bucket {index} from the stage's leader")
                _verify(bucket, buffer, version=version, where=where)
                names = (spec.name for spec in bucket.specs)
                tensors.update(zip(names, bucket.views(buffer), strict=True))
        return tensors


def seal(buffer: torch.Tensor, *, version: int) -> None:
    """Write the trailer of `buffer`, [n + TRAILER_BYTES] uint8: digest of the first n bytes XOR version."""
    value = digest(buffer[:-TRAILER_BYTES]) ^ version
    trailer = torch.tensor(list(value.to_bytes(TRAILER_BYTES, "little")), dtype=torch.uint8)
    buffer[-TRAILER_BYTES:].copy_(trailer)


def _fill(bucket: Bucket, source: Iterator[tuple[str, torch.Tensor]], *, version: int) -> torch.Tensor:
    """The sealed buffer of `bucket`, on the tensors' own device, in the dtype that was announced."""
    received = list(islice(source, len(bucket.specs)))
    found = [(name, tuple(tensor.shape)) for name, tensor in received]
    if found != [(spec.name, spec.shape) for spec in bucket.specs]:
        raise TransferError(f"announced {[tuple(s[:2]) for s in bucket.specs]}, got {found}")
    size = bucket.num_bytes + TRAILER_BYTES
    # Zeros, because the padding between tensors is part of what the digest covers.
    buffer = torch.zeros(size, dtype=torch.uint8, device=received[0][1].device)
    for view, (_, tensor) in zip(bucket.views(buffer), received, strict=True):
        view.copy_(tensor)
    seal(buffer, version=version)
    return buffer


def _verify(bucket: Bucket, buffer: torch.Tensor, *, version: int, where: str) -> None:
    trailer = int.from_bytes(bytes(buffer[-TRAILER_BYTES:].tolist()), "little")
    if trailer ^ digest(buffer[:-TRAILER_BYTES]) != version:
        first, last = bucket.specs[0].name, bucket.specs[-1].name
        raise TransferError(
            f"{where} ({len(bucket.specs)} tensors, {first} to {last}) is not what was sent as version "
            f"{version}: damaged on the way, or of another version"
        )
