"""How trainer ranks and engine workers come to one plan: all publish their layouts, and compare digests."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch.distributed import PrefixStore, Store

from rlstack.transfer.errors import TransferError
from rlstack.transfer.group import collect
from rlstack.transfer.layout import Piece
from rlstack.transfer.move_buckets import Bucket, plan_buckets
from rlstack.transfer.plan import Plan, PlanError, decode, encode
from rlstack.transfer.relay import build_relayed_plan

_NAMESPACE = "reshard"


@dataclass(frozen=True, slots=True)
class Member:
    """One of `num_sources` trainer ranks or of `num_receivers` engine workers, by its rank in their group."""

    rank: int  # sources first
    num_sources: int
    num_receivers: int

    @property
    def key(self) -> str:
        return _key(self.rank, self.num_sources)

    def everyone(self) -> dict[str, str]:
        """Who takes part, in the order of their ranks: names in the store, and in messages."""
        return self.named(range(self.num_sources + self.num_receivers))

    def named(self, ranks: Iterable[int]) -> dict[str, str]:
        """As `everyone`, of these ranks."""
        return {_key(rank, self.num_sources): member_name(rank, self.num_sources) for rank in sorted(ranks)}


@dataclass(frozen=True, slots=True)
class Agreed:
    """The same on all ranks. `dtypes` are those of the wire, by tensor."""

    plan: Plan
    buckets: list[Bucket]
    dtypes: dict[str, torch.dtype]


def reshard_store(store: Store) -> Store:
    """The part of `store` in which a transfer's members meet."""
    return PrefixStore(_NAMESPACE, store)


def member_name(rank: int, num_sources: int) -> str:
    return f"trainer rank {rank}" if rank < num_sources else f"engine worker {rank - num_sources}"


def negotiate(
    store: Store,
    member: Member,
    pieces: Sequence[Piece],
    *,
    dtypes: Mapping[str, str],
    bucket_bytes: int,
    timeout_s: float,
) -> Agreed:
    """Publish what `member` holds in `pieces`, and agree on a plan; blocks until all have come.

    dtypes: of the wire, by tensor, as in "float32", from receivers; sources have none.

    Raises TransferError if someone does not come in time, if the layouts do not fit together, or if another
    member arrived at another plan.
    """
    layout = json.dumps({"pieces": encode(pieces), "dtypes": dict(dtypes)})
    store.set(f"layout/{member.key}", layout)
    everyone = member.everyone()
    if member.rank == 0:
        _publish_shapes(store, member.named(range(member.num_sources)), timeout_s)
    layouts = [
        json.loads(text) for text in collect(store, place="layout", others=everyone, timeout_s=timeout_s)
    ]
    held = [decode(layout["pieces"]) for layout in layouts]
    agreed = _plan(
        held[: member.num_sources],
        held[member.num_sources :],
        _merge([layout["dtypes"] for layout in layouts]),
        bucket_bytes=bucket_bytes,
    )
    _compare(store, member, f"{agreed.plan.digest()} {bucket_bytes}", timeout_s)
    return agreed


def published_shapes(store: Store, *, timeout_s: float) -> dict[str, tuple[int, ...]]:
    """Shapes of the Hugging Face tensors that the trainer will send, by name, once its ranks are there.

    Raises TransferError if they are not within `timeout_s`.
    """
    others = {"source0": "the trainer's ranks"}
    (text,) = collect(reshard_store(store), place="shapes", others=others, timeout_s=timeout_s)
    return {name: tuple(shape) for name, shape in json.loads(text).items()}


def _publish_shapes(store: Store, sources: Mapping[str, str], timeout_s: float) -> None:
    """The least shapes that hold all pieces; one that is too small does not fit the engine's model."""
    layouts = collect(store, place="layout", others=sources, timeout_s=timeout_s)
    held = [piece for layout in layouts for piece in decode(json.loads(layout)["pieces"])]
    store.set("shapes/source0", json.dumps(_shapes(held)))


def _shapes(pieces: Sequence[Piece]) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for piece in pieces:
        highs = tuple(high for _, high in piece.box)
        known = shapes.get(piece.name, highs)
        shapes[piece.name] = tuple(map(max, known, highs))
    return shapes


def _merge(all_dtypes: Sequence[Mapping[str, str]]) -> dict[str, torch.dtype]:
    merged: dict[str, str] = {}
    for dtypes in all_dtypes:
        for name, dtype in dtypes.items():
            if merged.setdefault(name, dtype) != dtype:
                raise TransferError(f"{name}: one engine computes in {merged[name]}, another in {dtype}")
    return {name: _dtype(name, dtype) for name, dtype in merged.items()}


def _dtype(name: str, dtype: str) -> torch.dtype:
    found = getattr(torch, dtype, None)
    if not isinstance(found, torch.dtype):
        raise TransferError(f"{name}: {dtype} is not a dtype")
    return found


def _plan(
    sources: Sequence[Sequence[Piece]],
    receivers: Sequence[Sequence[Piece]],
    dtypes: dict[str, torch.dtype],
    *,
    bucket_bytes: int,
) -> Agreed:
    shapes = _shapes([piece for pieces in sources for piece in pieces])
    itemsizes = {name: dtype.itemsize for name, dtype in dtypes.items()}
    try:
        plan = build_relayed_plan(
            sources, receivers, shapes=shapes, itemsizes=itemsizes, bucket_bytes=bucket_bytes
        )
    except PlanError as error:
        raise TransferError(str(error)) from error
    return Agreed(plan, plan_buckets(plan, bucket_bytes=bucket_bytes), dtypes)


def _compare(store: Store, member: Member, plan: str, timeout_s: float) -> None:
    fingerprint = hashlib.sha256(plan.encode()).hexdigest()
    store.set(f"plan/{member.key}", fingerprint)
    everyone = member.everyone()
    found = collect(store, place="plan", others=everyone, timeout_s=timeout_s)
    if differing := [
        who for who, other in zip(everyone.values(), found, strict=True) if other != fingerprint
    ]:
        raise TransferError(f"{member.key} has another plan than {', '.join(differing)}")


def _key(rank: int, num_sources: int) -> str:
    return f"source{rank}" if rank < num_sources else f"receiver{rank - num_sources}"
