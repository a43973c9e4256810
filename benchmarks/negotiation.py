"""The negotiation of a weight transfer at its real size: what leaves the store, and each member's CPU time.

All members of a layout meet in one store as they do in a run; this process plays them one after the other.
Their layouts are predicted (as `rlstack plan-transfer` does), everything else is the product's own code:
publishing, reading and planning, the comparison of plans, and then the meetings and agreements of --rounds
syncs. Planning is measured on --sample members of each side; the others read the same bytes and plan nothing.

    distinct_layouts    among the members'; each is in the store once
    store_gib           that the members have read in the whole negotiation, as the kernel counts it
    decode_s, plan_s    CPU time of one member, the mean of the sample; max_s is the most of both together
    exponent_...        growth with the number of members since the row before, of one model and trainer
    keys_opened         in the store after the negotiation
    keys_per_round      that each sync after the first one leaves behind
    round_kib           that leaves the store for one sync, all members together

    python benchmarks/negotiation.py --out benchmarks/results/negotiation.json
"""

from __future__ import annotations

import argparse
import math
import os
import socket
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from report import write
from torch.distributed import Store

from rlstack.model.architecture import Architecture
from rlstack.model.known_models import KNOWN_MODELS
from rlstack.orchestration.layout_text import parse_engines, parse_trainer
from rlstack.orchestration.predict import model_shapes
from rlstack.orchestration.transfer_forecast import predicted_layouts
from rlstack.rendezvous import connect_store, serve_store
from rlstack.transfer.group import Agreement, Meetings, collect
from rlstack.transfer.move_buckets import deliveries, plan_buckets
from rlstack.transfer.negotiation import (
    LayoutCache,
    Member,
    MemberLayout,
    agree,
    compare,
    publish,
    publish_shapes,
    published_shapes,
    reshard_store,
)
from rlstack.transfer.plan import Plan

HOST = "127.0.0.1"
TIMEOUT_S = 300.0
BUCKET_BYTES = 256 << 20
LLAMA_70B = KNOWN_MODELS["Llama-3.1-70B"]
MODELS = {
    "Llama-3.1-70B": LLAMA_70B,
    "Llama-3.1-405B": replace(LLAMA_70B, num_layers=126, hidden_size=16384, ffn_size=53248, num_heads=128),
}
_TCPI_BYTES_RECEIVED = 128  # offset of that 64-bit field in the kernel's struct tcp_info


@dataclass(frozen=True)
class Played:
    """All members of a transfer and their connections to the store."""

    members: list[Member]
    layouts: list[MemberLayout]
    stores: list[Store]

    def everyone(self) -> dict[str, str]:
        return self.members[0].everyone()


class Reader(LayoutCache):
    """Reads as every cache does, and takes the layouts from those that are decoded already."""

    def __init__(self, decoded: Mapping[str, MemberLayout]) -> None:
        super().__init__()
        self._decoded = decoded

    def add(self, digest: str, packed: bytes) -> None:
        self.layouts[digest] = self._decoded[digest]


def main() -> None:
    arguments = parse()
    rows: list[dict[str, Any]] = []
    for case in arguments.cases:
        print(f"{case} ...", flush=True)
        taken = row(case, sample=arguments.sample, rounds=arguments.rounds)
        before = rows[-1] if rows and rows[-1]["from"] == taken["from"] else None
        rows.append(taken | {f"exponent_{key}": growth(before, taken, key) for key in ("store_gib", "max_s")})
    write(rows, arguments.out, title=f"negotiation, buckets of {BUCKET_BYTES >> 20} MiB")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument(
        "--cases",
        nargs="+",
        default=[
            "Llama-3.1-70B:TP8PP4DP2-4xTP8",
            "Llama-3.1-70B:TP8PP4DP2-16xTP8",
            "Llama-3.1-405B:TP8PP14-8xTP8",
            "Llama-3.1-405B:TP8PP14-32xTP8",
        ],
        help="model, trainer and engines, as in Llama-3.1-70B:TP8PP4DP2-16xTP8",
    )
    parser.add_argument("--sample", type=int, default=3, help="members of each side that plan")
    parser.add_argument("--rounds", type=int, default=50, help="syncs after the negotiation, at least 2")
    return parser.parse_args()


def row(case: str, *, sample: int, rounds: int) -> dict[str, Any]:
    """Play one case."""
    model, _, layout = case.partition(":")
    architecture = MODELS[model]
    trainer_text, engine_text = layout.split("-")
    server = serve_store(HOST, timeout_s=TIMEOUT_S)
    played = meet_all(architecture, trainer_text, engine_text, server.port)
    figures, plan = negotiate_all(played, sample=sample)
    opened, negotiated = server.num_keys(), bytes_received(server.port)
    keys = list(sync_all(played, plan, rounds, server))
    return {
        "model": model,
        "from": trainer_text,
        "to": engine_text,
        "members": len(played.members),
        "store_gib": negotiated / 2**30,
        **figures,
        "keys_opened": opened,
        "keys_per_round": (keys[-1] - keys[0]) / (rounds - 1),
        "round_kib": (bytes_received(server.port) - negotiated) / rounds / 2**10,
    }


def meet_all(architecture: Architecture, trainer: str, engines: str, port: int) -> Played:
    """Connect everyone with the store."""
    sources, receivers = predicted_layouts(
        architecture, parse_trainer(trainer, architecture), parse_engines(engines, architecture)
    )
    dtypes = dict.fromkeys(model_shapes(architecture), "bfloat16")
    layouts = [MemberLayout(pieces, {}) for pieces in sources] + [
        MemberLayout(pieces, dtypes) for pieces in receivers
    ]
    members = [Member(rank, len(sources), len(receivers)) for rank in range(len(layouts))]
    stores = [connect_store(HOST, port, timeout_s=TIMEOUT_S) for _ in members]
    return Played(members, layouts, stores)


def negotiate_all(played: Played, *, sample: int) -> tuple[dict[str, Any], Plan]:
    """As rlstack.transfer.negotiation.negotiate, one step after the other for all."""
    stores, num_sources = list(map(reshard_store, played.stores)), played.members[0].num_sources
    for member, store, layout in zip(played.members, stores, played.layouts, strict=True):
        publish(store, member, layout)
    publish_shapes(stores[0], played.members[0].named(range(num_sources)), LayoutCache(), TIMEOUT_S)
    for store in played.stores[num_sources:]:
        published_shapes(store, timeout_s=TIMEOUT_S)
    times: list[tuple[float, float]] = []
    sampled = {*spread(0, num_sources, sample), *spread(num_sources, len(stores), sample)}
    known = LayoutCache()
    for rank in sorted(range(len(stores)), key=lambda rank: rank not in sampled):
        digests = collect(stores[rank], place="layout", others=played.everyone(), timeout_s=TIMEOUT_S)
        if rank not in sampled:
            Reader(known.layouts).fetch(stores[rank], digests)
            continue
        known, started = LayoutCache(), time.process_time()
        known.fetch(stores[rank], digests)
        decoded = time.process_time()
        agreed = agree(played.members[rank], digests, bucket_bytes=BUCKET_BYTES, cache=known)
        times.append((decoded - started, time.process_time() - decoded))
    for member, store in zip(played.members, stores, strict=True):
        store.set(f"plan/{member.key}", agreed.fingerprint)  # the last ones are not there yet for the first
    for member, store in zip(played.members, stores, strict=True):
        compare(store, member, agreed.fingerprint, TIMEOUT_S)
    return {
        "distinct_layouts": len(known.layouts),
        "decode_s": sum(decode for decode, _ in times) / len(times),
        "plan_s": sum(plan for _, plan in times) / len(times),
        "max_s": max(map(sum, times)),
    }, agreed.plan


def sync_all(played: Played, plan: Plan, rounds: int, server: Any) -> Iterator[int]:
    """The keys in the store after each of `rounds` syncs, in which nothing is moved."""
    num_sources = played.members[0].num_sources
    peers: dict[int, set[int]] = defaultdict(set)
    buckets = plan_buckets(plan, bucket_bytes=BUCKET_BYTES)
    for way in deliveries(buckets, plan.relays, num_sources=num_sources):
        peers[way.sender].add(way.receiver)
        peers[way.receiver].add(way.sender)
    meetings, agreements = [], {}
    for member, store in zip(played.members, played.stores, strict=True):
        others = member.named(peers[member.rank])
        meetings.append(Meetings(reshard_store(store), me=member.key, others=others, timeout_s=TIMEOUT_S))
        if (receiver := member.rank - num_sources) >= 0:
            agreements[member.rank] = Agreement(
                store, receiver=receiver, receivers=range(member.num_receivers), timeout_s=TIMEOUT_S
            )

    def take_part(rank: int, version: int) -> None:
        meetings[rank].at(f"version{version}")
        if rank in agreements:
            agreements[rank].reach(None, what=f"version {version}")

    with ThreadPoolExecutor(len(meetings)) as pool:
        for version in range(1, rounds + 1):
            list(pool.map(take_part, range(len(meetings)), [version] * len(meetings)))
            yield server.num_keys()


def spread(low: int, high: int, count: int) -> list[int]:
    """`count` of low to high - 1, as far from each other as can be."""
    return [low + (high - low - 1) * i // max(count - 1, 1) for i in range(count)]


def growth(before: Mapping[str, Any] | None, row: Mapping[str, Any], key: str) -> float | None:
    if before is None:
        return None
    return math.log(row[key] / before[key]) / math.log(row["members"] / before["members"])


def bytes_received(port: int) -> int:
    """Bytes that all connections of this process to `port` have received so far (Linux)."""
    return sum(map(_bytes_received, _connections(port)))


def _connections(port: int) -> Sequence[socket.socket]:
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            connection = socket.socket(fileno=os.dup(int(name)))
        except OSError:  # no socket, or the folder's own
            continue
        try:
            connected = connection.getpeername()[1] == port
        except (OSError, IndexError):
            connected = False
        if connected:
            found.append(connection)
        else:
            connection.close()
    return found


def _bytes_received(connection: socket.socket) -> int:
    with connection:
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    return int.from_bytes(info[_TCPI_BYTES_RECEIVED : _TCPI_BYTES_RECEIVED + 8], "little")


if __name__ == "__main__":
    main()
