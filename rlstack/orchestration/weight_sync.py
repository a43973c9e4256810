"""The sync: the policy's weights become the generator's, checked on arrival."""

from __future__ import annotations

import time
from typing import Any

from rlstack.config.schema import RunConfig
from rlstack.orchestration.engine_group import EngineGroup
from rlstack.orchestration.policy_group import PolicyGroup
from rlstack.orchestration.roles import Role, wait_for
from rlstack.rendezvous import serve_store


class WeightSync:
    """Senders and receivers meet once, in a store on `host`; then every run() moves one version."""

    def __init__(self, policy: PolicyGroup, engines: EngineGroup, config: RunConfig, *, host: str) -> None:
        self._policy = policy
        self._engines = engines
        self._timeout_s = config.transfer.timeout_s
        self._store = serve_store(host, timeout_s=self._timeout_s)
        ranks_per_engine = config.rollout.tensor_parallel
        num_receivers = ranks_per_engine * len(engines.roles)
        calls = {
            role: role.start("open_transfer", host, self._store.port, num_receivers=num_receivers)
            for role in policy.roles
        }
        for index, role in enumerate(engines.roles):
            calls[role] = role.start(
                "open_transfer",
                host,
                self._store.port,
                first_receiver=index * ranks_per_engine,
                num_receivers=num_receivers,
                num_stages=config.policy.pipeline_parallel,
            )
        self._wait(calls, "opening the weight transfer")

    def run(self, version: int) -> dict[str, Any]:
        """Bring `version`, which the policy holds, to all engines; generation stands still meanwhile.

        Returns:
            sync/bytes received by all engine ranks together, sync/pause_s, and sync/verified: every bucket
            had the sender's digest. A bucket that has not fails the run before anything is loaded.
        """
        started = time.perf_counter()
        calls = {role: role.start("send_weights", version) for role in self._policy.roles}
        calls |= {role: role.start("receive_weights", version) for role in self._engines.roles}
        results = self._wait(calls, f"syncing version {version}")
        received = [results[role] for role in self._engines.roles]
        return {
            "sync/bytes": sum(stats["bytes"] for stats in received),
            "sync/pause_s": time.perf_counter() - started,
            "sync/verified": all(stats["verified"] for stats in received),
        }

    def _wait(self, calls: dict[Role, Any], doing: str) -> dict[Role, Any]:
        return wait_for(calls, timeout_s=self._timeout_s, doing=doing, setting="transfer.timeout_s")
