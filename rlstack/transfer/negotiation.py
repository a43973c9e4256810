"""How trainer ranks and engine workers come to one plan: all publish their layouts, and compare digests.

A layout is published once, under its digest, by the first of the members that have it; everyone reads each
of them once, and keeps them for the next time.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch.distributed import PrefixStore, Store

from rlstack.transfer.errors import TransferError
from rlstack.transfer.group import collect, wait_for_all
from rlstack.transfer.layout import Piece, decode, encode
from rlstack.transfer.move_buckets import Delivery, deliveries, member_name, plan_buckets
from rlstack.transfer.plan import Plan, PlanError
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

    def deliveries(self, plan: Plan, *, bucket_bytes: int) -> list[Delivery]:
        """Those in which this member has a part, in their order; those of the others are not planned."""
        if self.rank < self.num_sources:
            buckets = plan_buckets(plan, bucket_bytes=bucket_bytes, source=self.rank)
        else:
            first = plan.first(self.rank - self.num_sources)
            buckets = plan_buckets(plan, bucket_bytes=bucket_bytes, receiver=first)
        ways = deliveries(buckets, plan.relays, num_sources=self.num_sources)
        return [way for way in ways if self.rank in (way.sender, way.receiver)]


@dataclass(frozen=True, slots=True)
class MemberLayout:
    """A member's layout; `dtypes` of the wire, by tensor, as in "float32": of a source there are none."""

    pieces: Sequence[Piece]
    dtypes: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Agreed:
    """`plan` and the wire's `dtypes` are the same on all ranks; `deliveries` are those of one member."""

    plan: Plan
    deliveries: list[Delivery]
    dtypes: dict[str, torch.dtype]
    fingerprint: str


@dataclass
class LayoutCache:
    """A process's last negotiation, most of which holds when a transfer is opened again."""

    layouts: dict[str, MemberLayout] = field(default_factory=dict)  # by digest
    agreed: dict[object, Agreed] = field(default_factory=dict)  # the last one, by all that it depends on

    def fetch(self, store: Store, digests: Iterable[str]) -> None:
        """Read the layouts that are not known yet, in one request. Raises TransferError if one is damaged."""
        unknown = [digest for digest in dict.fromkeys(digests) if digest not in self.layouts]
        texts = store.multi_get([f"text/{digest}" for digest in unknown]) if unknown else []
        for digest, packed in zip(unknown, texts, strict=True):
            self.add(digest, packed)

    def add(self, digest: str, packed: bytes) -> None:
        """Keep a layout as `publish` has packed it."""
        text = zlib.decompress(packed)
        if hashlib.sha256(text).hexdigest() != digest:
            raise TransferError(f"the layout that was published as {digest} is another one")
        pieces, dtypes = text.decode().split("\n")
        self.layouts[digest] = MemberLayout(decode(pieces), json.loads(dtypes))


def reshard_store(store: Store) -> Store:
    """The part of `store` in which a transfer's members meet."""
    return PrefixStore(_NAMESPACE, store)


def negotiate(
    store: Store,
    member: Member,
    pieces: Sequence[Piece],
    *,
    dtypes: Mapping[str, str],
    bucket_bytes: int,
    timeout_s: float,
    cache: LayoutCache,
) -> Agreed:
    """Publish what `member` holds in `pieces`, and agree on a plan; blocks until all have come.

    dtypes: of the wire, by tensor, as in "float32", from receivers; sources have none. cache: of this
    process; nothing that is in it is read or planned again.

    Raises TransferError if someone does not come in time, if the layouts do not fit together, or if another
    member arrived at another plan.
    """
    publish(store, member, MemberLayout(pieces, dtypes))
    if member.rank == 0:
        publish_shapes(store, member.named(range(member.num_sources)), cache, timeout_s)
    digests = collect(store, place="layout", others=member.everyone(), timeout_s=timeout_s)
    cache.fetch(store, digests)
    agreed = agree(member, digests, bucket_bytes=bucket_bytes, cache=cache)
    compare(store, member, agreed.fingerprint, timeout_s)
    return agreed


def publish(store: Store, member: Member, layout: MemberLayout) -> None:
    """Leave the digest of the layout under the member's name, after the layout itself if it is a new one."""
    text = f"{encode(layout.pieces)}\n{json.dumps(dict(layout.dtypes))}".encode()
    digest = hashlib.sha256(text).hexdigest()
    if not store.check([f"text/{digest}"]):
        store.set(f"text/{digest}", zlib.compress(text))  # type: ignore[arg-type]  # torch takes bytes
    store.set(f"layout/{member.key}", digest)


def agree(member: Member, digests: Sequence[str], *, bucket_bytes: int, cache: LayoutCache) -> Agreed:
    """Plan the part of `member`, `digests` being those of all members' layouts, which are in `cache`.

    Raises TransferError if the layouts do not fit together.
    """
    key = (member, tuple(digests), bucket_bytes)
    if key not in cache.agreed:
        layouts = [cache.layouts[digest] for digest in digests]
        cache.agreed = {key: _plan(member, layouts, bucket_bytes=bucket_bytes)}
        cache.layouts = dict(zip(digests, layouts, strict=True))
    return cache.agreed[key]


def published_shapes(store: Store, *, timeout_s: float) -> dict[str, tuple[int, ...]]:
    """Shapes of the Hugging Face tensors that the trainer will send, by name, once its ranks are there.

    Raises TransferError if they are not within `timeout_s`.
    """
    store, others = reshard_store(store), {"source0": "the trainer's ranks"}
    (key,) = wait_for_all(store, place="shapes", others=others, timeout_s=timeout_s)
    return {name: tuple(shape) for name, shape in json.loads(zlib.decompress(store.get(key))).items()}


def publish_shapes(store: Store, sources: Mapping[str, str], cache: LayoutCache, timeout_s: float) -> None:
    """The least shapes that hold all pieces; one that is too small does not fit the engine's model."""
    digests = collect(store, place="layout", others=sources, timeout_s=timeout_s)
    cache.fetch(store, digests)
    shapes = _shapes(cache.layouts[digest] for digest in set(digests))
    packed = zlib.compress(json.dumps(shapes).encode())
    store.set("shapes/source0", packed)  # type: ignore[arg-type]  # torch takes bytes


def _shapes(layouts: Iterable[MemberLayout]) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for piece in (piece for layout in layouts for piece in layout.pieces):
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


def _plan(member: Member, layouts: Sequence[MemberLayout], *, bucket_bytes: int) -> Agreed:
    distinct = {id(layout): layout for layout in layouts}.values()
    dtypes = _merge([layout.dtypes for layout in distinct])
    sources, receivers = layouts[: member.num_sources], layouts[member.num_sources :]
    try:
        plan = build_relayed_plan(
            [layout.pieces for layout in sources],
            [layout.pieces for layout in receivers],
            shapes=_shapes({id(layout): layout for layout in sources}.values()),
            itemsizes={name: dtype.itemsize for name, dtype in dtypes.items()},
            bucket_bytes=bucket_bytes,
        )
    except PlanError as error:
        raise TransferError(str(error)) from error
    fingerprint = hashlib.sha256(f"{plan.digest()} {bucket_bytes}".encode()).hexdigest()
    return Agreed(plan, member.deliveries(plan, bucket_bytes=bucket_bytes), dtypes, fingerprint)


def compare(store: Store, member: Member, fingerprint: str, timeout_s: float) -> None:
    store.set(f"plan/{member.key}", fingerprint)
    everyone = member.everyone()
    found = collect(store, place="plan", others=everyone, timeout_s=timeout_s)
    if differing := [
        who for who, other in zip(everyone.values(), found, strict=True) if other != fingerprint
    ]:
        raise TransferError(f"{member.key} has another plan than {', '.join(differing)}")


def _key(rank: int, num_sources: int) -> str:
    return f"source{rank}" if rank < num_sources else f"receiver{rank - num_sources}"
