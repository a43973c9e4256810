"""What a transfer between two layouts will move, before there is any machine to run it on."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from rlstack.model.architecture import Architecture
from rlstack.orchestration.layout_text import EngineLayout, TrainerLayout
from rlstack.orchestration.predict import model_shapes, predicted_receiver_pieces, predicted_source_pieces
from rlstack.transfer.bounds import busiest_link_bytes, lower_bound_s
from rlstack.transfer.layout import Piece, volume
from rlstack.transfer.move_buckets import plan_buckets
from rlstack.transfer.relay import build_relayed_plan


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
    sources, receivers = _layouts(architecture, trainer, engines)
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
    peers = Counter(receiver for receiver, _ in {(move.receiver, move.source) for move in plan.moves})
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
        num_moves=len(plan.moves),
        num_buckets=len(buckets),
        max_peers=max(peers.values()),
        num_relays=len(plan.relays),
        plan_s=plan_s,
        bounds={
            link: Bound(
                rate, lower_bound_s(busiest, gb_per_s=rate), lower_bound_s(model_bytes, gb_per_s=rate)
            )
            for link, rate in gb_per_s.items()
        },
    )


def _layouts(
    architecture: Architecture, trainer: TrainerLayout, engines: EngineLayout
) -> tuple[list[list[Piece]], list[list[Piece]]]:
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
