"""What a transfer between two layouts will move, before there is any machine to run it on."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from rlstack.model.architecture import Architecture
from rlstack.orchestration.layout_text import EngineLayout, TrainerLayout
from rlstack.orchestration.predict import model_shapes, predicted_receiver_pieces, predicted_source_pieces
from rlstack.transfer.layout import Piece, volume
from rlstack.transfer.move_buckets import plan_buckets
from rlstack.transfer.plan import Demand, Plan
from rlstack.transfer.relay import build_relayed_plan, choose_plan


@dataclass(frozen=True, slots=True)
class Bound:
    """Lower bounds on one kind of link, seconds."""

    gb_per_s: float
    transfer_s: float
    broadcast_s: float  # the whole model through one rank's link


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """Figures of a plan; a floor is the size of the receiver's own share of the weights."""

    num_sources: int
    num_receivers: int
    model_bytes: int
    max_sent_bytes: int
    min_sent_bytes: int
    max_received_bytes: int
    max_floor_bytes: int
    received_over_floor: float  # of the receiver with the most in excess; 1 if nothing is sent in vain
    num_moves: int
    num_buckets: int
    max_peers: int  # sources of one receiver
    num_relays: int
    plan_s: float
    bounds: Mapping[str, Bound]


def forecast(
    architecture: Architecture,
    trainer: TrainerLayout,
    engines: EngineLayout,
    *,
    itemsize: int,
    bucket_bytes: int,
    gb_per_s: Mapping[str, float],
) -> Forecast:
    """Plan the transfer between predicted layouts.

    itemsize: bytes of an element on the wire. gb_per_s: bandwidth per rank and direction, by link.
    """
    sources, receivers = predicted_layouts(architecture, trainer, engines)
    shapes = model_shapes(architecture)
    model_bytes = sum(map(math.prod, shapes.values())) * itemsize

    start = time.perf_counter()
    itemsizes = dict.fromkeys(shapes, itemsize)
    plan = build_relayed_plan(
        sources, receivers, shapes=shapes, itemsizes=itemsizes, bucket_bytes=bucket_bytes
    )
    buckets = plan_buckets(plan, bucket_bytes=bucket_bytes)
    plan_s = time.perf_counter() - start

    sent = [plan.bytes_sent(source) for source in range(len(sources))]
    received = [plan.bytes_received(receiver) for receiver in range(len(receivers))]
    floors = [sum(volume(piece.box) for piece in pieces) * itemsize for pieces in receivers]
    busiest = busiest_link_bytes(plan, num_sources=len(sources), num_receivers=len(receivers))
    return Forecast(
        num_sources=len(sources),
        num_receivers=len(receivers),
        model_bytes=model_bytes,
        max_sent_bytes=max(sent),
        min_sent_bytes=min(sent),
        max_received_bytes=max(received),
        max_floor_bytes=max(floors),
        received_over_floor=max(a / b for a, b in zip(received, floors, strict=True)),
        num_moves=sum(len(share.wants) for share in plan.shares),
        num_buckets=len(buckets),
        max_peers=max(len(set(share.sources)) for share in plan.shares),
        num_relays=len(plan.relays),
        plan_s=plan_s,
        bounds={
            link: Bound(
                rate, lower_bound_s(busiest, gb_per_s=rate), lower_bound_s(model_bytes, gb_per_s=rate)
            )
            for link, rate in gb_per_s.items()
        },
    )


@lru_cache
def least_transfer_bytes(
    architecture: Architecture,
    trainer: TrainerLayout,
    engines: EngineLayout,
    *,
    itemsize: int,
    bucket_bytes: int,
) -> int:
    """`busiest_link_bytes` of the plan between predicted layouts; itemsize as in `forecast`.

    The moves are spread over the sources only where the busiest link may be a source's.
    """
    sources, receivers = predicted_layouts(architecture, trainer, engines)
    shapes = model_shapes(architecture)
    demand = Demand(sources, receivers, shapes=shapes, itemsizes=dict.fromkeys(shapes, itemsize))
    if demand.most_sent() <= demand.max_received():  # then no relay makes it shorter
        return demand.max_received()
    plan = choose_plan(demand, num_sources=len(sources), bucket_bytes=bucket_bytes)
    return max(demand.max_received(), *map(plan.bytes_sent, range(len(sources))))


def busiest_link_bytes(plan: Plan, *, num_sources: int, num_receivers: int) -> int:
    """The most bytes that one rank sends or receives: no transfer takes less than its busiest link.

    Links are full duplex, one per rank, and nothing else takes any time.
    A relay's sender sends all that it has received.
    """
    sent = (plan.bytes_sent(source) for source in range(num_sources))
    received = (plan.bytes_received(receiver) for receiver in range(num_receivers))
    return max(*sent, *received)


def lower_bound_s(num_bytes: int, *, gb_per_s: float) -> float:
    """Seconds for `num_bytes` over one link of `gb_per_s`, in 10^9 bytes per second and direction."""
    return num_bytes / (gb_per_s * 1e9)


def predicted_layouts(
    architecture: Architecture, trainer: TrainerLayout, engines: EngineLayout
) -> tuple[list[list[Piece]], list[list[Piece]]]:
    """The pieces of each trainer rank and of each engine worker, without a process of either."""
    sources = predicted_source_pieces(
        architecture,
        tensor_parallel=trainer.tensor_parallel,
        pipeline_parallel=trainer.pipeline_parallel,
        data_parallel=trainer.data_parallel,
        context_parallel=trainer.context_parallel,
        virtual_pipeline=trainer.virtual_pipeline,
        pipeline_layers=trainer.pipeline_layers,
    )
    size = engines.tensor_parallel
    engine = [
        predicted_receiver_pieces(architecture, tensor_parallel=size, rank=rank) for rank in range(size)
    ]
    return sources, engine * engines.num_engines
