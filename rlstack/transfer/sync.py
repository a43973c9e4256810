"""The driver's side of a sync: tell the policy to send, the engines to receive, and wait for both."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray

from rlstack.config.schema import RunConfig
from rlstack.rendezvous import serve_store
from rlstack.transfer.group import TransferError

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncStats:
    """What a sync took."""

    bytes: int  # received by all engine workers together
    pause_s: float  # during which no engine could generate
    verified: bool  # every worker verified the version that was asked for


class WeightTransfer:
    """Takes the policy's weights to the engines.

    `policy_workers` are actors with `open_transfer(host, port, num_receivers)` and `send_weights(version)`, in
    the order of their ranks; `engines` are actors of `rlstack.rollout.engine.Engine`.
    """

    def __init__(self, policy_workers: Sequence[Any], engines: Sequence[Any], config: RunConfig) -> None:
        self._policy_workers = policy_workers
        self._engines = engines
        self._config = config

    def open(self) -> None:
        """Connect the policy's stages with the engines' workers.

        Raises TransferError naming the first actor that fails or does not come within transfer.timeout_s.
        """
        config = self._config
        host = LOOPBACK if config.cluster.address is None else ray.util.get_node_ip_address()
        # Kept open: the two sides meet in it before every sync.
        self._store = serve_store(host, timeout_s=config.transfer.timeout_s)
        engine_size = config.rollout.tensor_parallel
        num_receivers = engine_size * len(self._engines)
        calls = {
            f"policy rank {rank}": worker.open_transfer.remote(host, self._store.port, num_receivers)
            for rank, worker in enumerate(self._policy_workers)
        }
        for index, engine in enumerate(self._engines):
            calls[f"engine {index}"] = engine.open_transfer.remote(
                host,
                self._store.port,
                num_stages=config.policy.pipeline_parallel,
                first_receiver=index * engine_size,
                num_receivers=num_receivers,
            )
        self._wait(calls, what="opening the transfer")

    def sync(self, version: int) -> SyncStats:
        """Make the engines hold the policy's weights, which are of `version`.

        Raises TransferError naming the first actor that fails or is not done within transfer.timeout_s.
        """
        started = time.perf_counter()
        calls = {
            f"policy rank {rank}": worker.send_weights.remote(version)
            for rank, worker in enumerate(self._policy_workers)
        }
        engines = {
            f"engine {index}": engine.receive_weights.remote(version)
            for index, engine in enumerate(self._engines)
        }
        results = self._wait(calls | engines, what=f"the sync of version {version}")
        received = [results[name] for name in engines]
        return SyncStats(
            bytes=int(sum(stats["bytes"] for stats in received)),
            pause_s=time.perf_counter() - started,
            verified=all(stats["verified"] == 1.0 for stats in received),
        )

    def _wait(self, calls: Mapping[str, ray.ObjectRef], *, what: str) -> dict[str, Any]:
        """Results of `calls` by the name of the actor; the first failure ends the wait."""
        names = {ref: name for name, ref in calls.items()}
        results: dict[str, Any] = {}
        timeout_s = self._config.transfer.timeout_s
        deadline = time.monotonic() + timeout_s
        pending = list(names)
        while pending:
            done, pending = ray.wait(pending, timeout=max(0.0, deadline - time.monotonic()))
            if not done:
                late = ", ".join(names[ref] for ref in pending)
                raise TransferError(f"{what}: {late} not done after {timeout_s:g} s (transfer.timeout_s)")
            for ref in done:
                try:
                    results[names[ref]] = ray.get(ref)
                except ray.exceptions.RayError as error:
                    raise TransferError(f"{what}: {names[ref]} failed: {error}") from error
        return results
