"""The sync: the policy's weights become the generator's, checked on arrival."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

from rlstack.config.schema import Precision, RunConfig, TransferMethod
from rlstack.orchestration.engine_group import EngineGroup
from rlstack.orchestration.policy_group import PolicyGroup
from rlstack.orchestration.roles import Role, wait_for
from rlstack.rendezvous import serve_store
from rlstack.transfer.errors import TransferError

PHASES = ("receive_s", "wait_s", "land_s")  # of an engine; the wait is the part of receiving in the commit

# What two engines' arithmetic may differ by on the probe, in nats and on average over its tokens.
PROBE_LIMIT = {Precision.fp32: 1e-3, Precision.bf16: 0.1}


class Ordered(NamedTuple):
    """A round whose version the engines will take over; the results come by role."""

    version: int
    commits: dict[Role, Any]
    probes: dict[Role, Any]


class WeightSync:
    """The ranks of both sides meet once, in a store on `host`; then each round moves one version.

    A round is begin(), order() and end(); the engines may generate all the time, and the policy may train.
    run() does all at once. commit() is order() and end() without the probe.
    """

    def __init__(
        self,
        policy: PolicyGroup,
        engines: EngineGroup,
        config: RunConfig,
        *,
        host: str,
        probe: Sequence[int],
        method: TransferMethod | None = None,
    ) -> None:
        """probe: token ids of some text; method: another than config.transfer.method, beside others."""
        self._policy = policy
        self._engines = engines
        self._method = method or config.transfer.method
        self._probe_tokens = list(probe)
        self._probe_limit = PROBE_LIMIT[config.policy.precision]
        self._timeout_s = config.transfer.timeout_s
        self._store = serve_store(host, timeout_s=self._timeout_s)
        ranks_per_engine = config.rollout.tensor_parallel
        num_receivers = ranks_per_engine * len(engines.roles)
        meeting = {"method": self._method, "num_receivers": num_receivers}
        calls = {
            role: role.start("open_transfer", host, self._store.port, **meeting) for role in policy.roles
        }
        for index, role in enumerate(engines.roles):
            first_receiver = index * ranks_per_engine
            calls[role] = role.start(
                "open_transfer", host, self._store.port, first_receiver=first_receiver, **meeting
            )
        self._wait(calls, "opening the weight transfer")

    def run(self, version: int) -> dict[str, Any]:
        """Bring `version`, which the policy holds, to all engines: begin, commit and probe."""
        self.begin(version)
        return self.end(self.order(version))

    def begin(self, version: int) -> None:
        """Start to send and to receive `version`; the engines go on with the weights that they have."""
        calls = {
            role: role.start_beside("begin_receive", version, self._method) for role in self._engines.roles
        }
        calls |= {role: role.start("begin_send", version, self._method) for role in self._policy.roles}
        self._wait(calls, f"beginning the sync of version {version}")

    def wait_sent(self, version: int) -> None:
        """Wait until all of `version` has left the policy; commit() then has to wait for little."""
        self._wait(self._fences(), f"sending version {version}")

    def order(self, version: int) -> Ordered:
        """Let the engines take over `version`, which was begun, once they have done what they were asked for.

        What they are asked for after this, they do with `version`. The probe is taken on both sides. Returns
        at once; end() has to follow before the next begin().
        """
        commits = {role: role.start("commit_receive", version, self._method) for role in self._engines.roles}
        if self._method is not TransferMethod.reshard:
            commits |= self._fences()  # which is where these methods send
        return Ordered(version, commits, self._start_probes())

    def end(self, ordered: Ordered) -> dict[str, Any]:
        """Wait until what was ordered has been done everywhere: what commit() and probe() return."""
        return self._committed(ordered.commits, ordered.version) | self._compare(ordered)

    def commit(self, version: int) -> dict[str, Any]:
        """Make all engines hold `version`, which was begun; generation stands still meanwhile.

        Returns:
            sync/version, sync/bytes received by all engine ranks together, sync/pause_s and the PHASES of the
            slowest engine, and sync/verified: all that arrived had the sender's digest. What has not fails
            the run before anything is loaded.
        """
        calls = {role: role.start("commit_receive", version, self._method) for role in self._engines.roles}
        return self._committed(calls, version)

    def probe(self, version: int) -> dict[str, float]:
        """sync/probe_abs_mean: how far policy and engines are apart on the probe's logprobs, in nats.

        Digests say that the right bytes arrived; this says that the engines compute with them.

        Raises TransferError if they are further apart than arithmetic explains.
        """
        return self._compare(Ordered(version, {}, self._start_probes()))

    def _committed(self, commits: dict[Role, Any], version: int) -> dict[str, Any]:
        results = self._wait(commits | self._fences(), f"syncing version {version}")
        received = [results[role] for role in self._engines.roles]
        slowest = {f"sync/{phase}": max(stats[phase] for stats in received) for phase in PHASES}
        return {
            "sync/version": version,
            **slowest,
            "sync/bytes": int(sum(stats["bytes"] for stats in received)),
            "sync/pause_s": max(stats["wait_s"] + stats["land_s"] for stats in received),
            "sync/verified": all(stats["verified"] for stats in received),
        }

    def _start_probes(self) -> dict[Role, Any]:
        roles = [*self._policy.roles, *self._engines.roles]
        return {role: role.start("probe", self._probe_tokens) for role in roles}

    def _compare(self, ordered: Ordered) -> dict[str, float]:
        version = ordered.version
        probes = self._wait(ordered.probes, f"probing version {version}")
        (ours,) = (probe for role in self._policy.roles if (probe := probes[role]) is not None)
        distances = [
            statistics.fmean(abs(a - b) for a, b in zip(ours, probes[role], strict=True))
            for role in self._engines.roles
        ]
        furthest = max(distances)
        if not furthest <= self._probe_limit:
            raise TransferError(
                f"version {version} has arrived, but engine {distances.index(furthest)} does not compute "
                f"with it: its logprobs of the probe are {furthest:.2g} nats from the policy's, where "
                f"{self._probe_limit:g} is accepted"
            )
        return {"sync/probe_abs_mean": furthest}

    def _fences(self) -> dict[Role, Any]:
        return {role: role.start("fence", self._method) for role in self._policy.roles}

    def _wait(self, calls: dict[Role, Any], doing: str) -> dict[Role, Any]:
        return wait_for(calls, timeout_s=self._timeout_s, doing=doing, setting="transfer.timeout_s")
