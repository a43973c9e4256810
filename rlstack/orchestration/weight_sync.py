"""The sync: the policy's weights become the generator's, checked on arrival."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlstack.config.schema import RunConfig, TransferMethod
from rlstack.orchestration.engine_group import EngineGroup
from rlstack.orchestration.policy_group import PolicyGroup
from rlstack.orchestration.protocols import GeneratorEngine, PolicyRank
from rlstack.orchestration.roles import (
    Call,
    EngineLost,
    Role,
    RoleError,
    RoleLost,
    silent_or_dead,
    wait_for,
)
from rlstack.orchestration.weight_probe import Probe, Probes, check_quantised
from rlstack.rendezvous import serve_store

TIMEOUT = "transfer.timeout_s"
PHASES = ("receive_s", "wait_s", "land_s")  # of an engine; the wait is the part of receiving in the commit

# How long those who can still answer may take once the store is gone where they meet; a landing is in it.
GIVE_UP_S = 20.0


@dataclass(slots=True)
class Ordered:
    """A version on its way, and the calls that bring it."""

    version: int
    commits: Sequence[Call[Mapping[str, float]]] = ()  # of the engines
    fences: Sequence[Call[dict[str, float]]] = ()  # of the policy, in the methods that send there
    probes: Probes = ()
    metrics: dict[str, float] | None = None  # once it has ended


class WeightSync:
    """The ranks of both sides meet in a store on `host`; then each round moves one version.

    A round is begin(), order() and end(); the engines may generate all the time, and the policy may train.
    run() does all at once. commit() is order() and end() without the probe. Where an engine is lost in a
    round, the engines mend it, by redo(), and the round goes on as if nothing had happened.
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
        self._host = host
        self._method = method or config.transfer.method
        self._config = config
        self._probe = Probe(probe, config)
        self._ranks_per_engine = config.rollout.tensor_parallel
        self._before_round: Callable[[], None] = _nothing
        self._timeout_s = config.transfer.timeout_s
        self._port_range = config.cluster.port_range
        self._store: Any = None  # where those in `_members` meet
        self._members: list[Role[GeneratorEngine]] = []
        self.under_way: Ordered | None = None
        self._open(engines.roles)

    def before_round(self, do: Callable[[], None]) -> None:
        """Have `do` called before a version is brought to the engines."""
        self._before_round = do

    def check_loaded(self, engines: Sequence[Role[GeneratorEngine]] | None = None) -> None:
        """Compare version 0, which `engines`, by default all, have loaded, with the policy's; see Probe.

        Raises ConfigError, too, if policy and engines quantise different layers.
        """
        check_quantised(self._config, engines or self._engines.roles, policy=self._policy.roles)
        self._probe.check_loaded(engines or self._engines.roles, policy=self._policy.roles)

    def run(self, version: int) -> dict[str, float]:
        """Bring `version`, which the policy holds, to all engines: begin, commit and probe."""
        self.begin(version)
        return self.end(self.order(version))

    def begin(self, version: int) -> None:
        """Start to send and to receive `version`; the engines go on with the weights that they have."""
        self._before_round()
        self.under_way = Ordered(version)
        try:
            self._meet(self._engines.roles)
            self._begin(self._engines.roles, version)
        except EngineLost as lost:
            self._engines.mend(lost)

    def wait_sent(self, version: int) -> None:
        """Wait until all of `version` has left the policy; commit() then has to wait for little."""
        self._wait(self._fences(), f"sending version {version}")

    def order(self, version: int) -> Ordered:
        """Let the engines take over `version`, which was begun, once they have done what they were asked for.

        What they are asked for after this, they do with `version`. The probe is taken on both sides. Returns
        at once; end() has to follow before the next begin().
        """
        assert self.under_way is not None and self.under_way.version == version, "begin comes first"
        if self.under_way.metrics is None:
            self._order(self._engines.roles, self.under_way)
        self._engines.version = version
        return self.under_way

    def end(self, ordered: Ordered) -> dict[str, float]:
        """Wait until what was ordered has been done everywhere: what commit() and probe() return."""
        if ordered.metrics is None:
            try:
                ordered.metrics = self._end(ordered)
            except EngineLost as lost:
                self._engines.mend(lost)
        assert ordered.metrics is not None, "mending ends the round"
        self.under_way = None
        return ordered.metrics

    def redo(self) -> None:
        """Do the round under way from its beginning, with the engines as they are now.

        Raises EngineLost, after which this can be called again.
        """
        assert self.under_way is not None
        self._give_up()
        self._await(self.under_way)
        self.under_way.metrics = self.bring(self.under_way.version, self._engines.roles)

    def bring(self, version: int, engines: Sequence[Role[GeneratorEngine]]) -> dict[str, float]:
        """Have these `engines`, which are asked for nothing meanwhile, hold `version`; as run().

        Of the policy's versions it is the last that was begun. The transfer is opened with all engines, so
        that the next round finds it open. Raises EngineLost, after which this can be called again.
        """
        self._before_round()
        self._policy.serve(version)
        try:
            self._give_up()
            # A broadcast, of the other methods, goes to everyone with whom it is open.
            self._open(self._engines.roles if self._method is TransferMethod.reshard else engines)
            self._begin(engines, version)
            ordered = Ordered(version)
            self._order(engines, ordered)
            metrics = self._end(ordered)
        except EngineLost:
            self._give_up()
            self._policy.end_serving()
            raise
        self._policy.end_serving()
        return metrics

    def hold(self, version: int) -> None:
        """As bring() to all engines, whatever they hold, for a run that goes on from there."""
        self.under_way = Ordered(version)
        try:
            self.redo()
        except EngineLost as lost:
            self._engines.mend(lost)
        self._engines.version, self.under_way = version, None

    def follow(self, policy: PolicyGroup) -> None:
        """Take the weights from `policy` from now on, which is in the place of the one before."""
        self._give_up()
        self._policy, self.under_way = policy, None

    def who_is_lost(self) -> RoleLost | None:
        """The one who keeps the round under way from its end, if it is not just slow, which then ends too."""
        if self.under_way is None:
            return None
        self._give_up()
        return silent_or_dead(
            [*self.under_way.commits, *self.under_way.fences],
            timeout_s=GIVE_UP_S,
            doing=f"syncing version {self.under_way.version}",
            within=f"the {GIVE_UP_S:g} s after it was given up",
        )

    def _await(self, given_up: Ordered) -> None:
        """Wait until those who are still there have done what the round asked of them, well or not."""
        there: set[Role[object]] = {*self._policy.roles, *self._engines.roles}
        for calls in ([*given_up.commits, *given_up.fences], given_up.probes):
            lost = silent_or_dead(
                [call for call in calls if call.role in there],
                timeout_s=self._timeout_s,
                doing=f"giving up the sync of version {given_up.version}",
                within=self._limit,
            )
            if lost is not None:
                raise lost

    def _meet(self, engines: Sequence[Role[GeneratorEngine]]) -> None:
        """Have the policy and `engines`, and nobody else, ready for a round."""
        if self._members != list(engines):
            self._give_up()
            self._open(engines)

    def _give_up(self) -> None:
        """Nothing comes of the round that is open; those in it hear of that at once, not at their limits."""
        if self._members:
            for role in self._policy.roles:
                role.start(PolicyRank.close_transfer, self._method)
        self._store, self._members = None, []

    def _open(self, engines: Sequence[Role[GeneratorEngine]]) -> None:
        self._store = serve_store(self._host, timeout_s=self._timeout_s, port_range=self._port_range)
        port, num_receivers = self._store.port, self._ranks_per_engine * len(engines)
        calls = [
            role.start(
                PolicyRank.open_transfer, self._host, port, method=self._method, num_receivers=num_receivers
            )
            for role in self._policy.roles
        ]
        calls += [
            role.start_beside(
                GeneratorEngine.open_transfer,
                self._host,
                port,
                method=self._method,
                first_receiver=index * self._ranks_per_engine,
                num_receivers=num_receivers,
            )
            for index, role in enumerate(engines)
        ]
        self._wait(calls, "opening the weight transfer")
        self._members = list(engines)

    def _begin(self, engines: Sequence[Role[GeneratorEngine]], version: int) -> None:
        receive, send = GeneratorEngine.begin_receive, PolicyRank.begin_send
        receivers = self._receivers(engines)
        calls = [role.start_beside(receive, version, self._method, receivers) for role in engines]
        calls += [role.start(send, version, self._method, receivers) for role in self._policy.roles]
        self._wait(calls, f"beginning the sync of version {version}")

    def _receivers(self, engines: Sequence[Role[GeneratorEngine]]) -> list[int] | None:
        """The workers of `engines`, counted over all that the transfer is open with; None: those of all."""
        if self._members == list(engines):
            return None
        size = self._ranks_per_engine
        places = (self._members.index(role) for role in engines)
        return [receiver for place in places for receiver in range(place * size, (place + 1) * size)]

    def _order(self, engines: Sequence[Role[GeneratorEngine]], round_: Ordered) -> None:
        round_.commits = self._commits(engines, round_.version)
        if self._method is not TransferMethod.reshard:
            round_.fences = self._fences()  # where these methods send
        round_.probes = self._start_probes(engines)

    def _end(self, round_: Ordered) -> dict[str, float]:
        return self._committed(round_.commits, round_.version) | self._compare(round_.probes, round_.version)

    def commit(self, version: int) -> dict[str, float]:
        """Make all engines hold `version`, which was begun; generation stands still meanwhile.

        Returns:
            sync/version, sync/bytes received by all engine ranks together, sync/pause_s and the PHASES of the
            slowest engine, and sync/verified: all that arrived had the sender's digest. What has not fails
            the run before anything is loaded.
        """
        metrics = self._committed(self._commits(self._engines.roles, version), version)
        self._engines.version, self.under_way = version, None
        return metrics

    def probe(self, version: int) -> dict[str, float]:
        """sync/probe_abs_mean: how far policy and engines are apart on the probe's logprobs, in nats.

        Raises TransferError if they are further apart than arithmetic explains.
        """
        return self._compare(self._start_probes(self._engines.roles), version)

    def _committed(self, commits: Sequence[Call[Mapping[str, float]]], version: int) -> dict[str, float]:
        self._wait([*commits, *self._fences()], f"syncing version {version}")
        received = [commit.result for commit in commits]
        slowest = {f"sync/{phase}": max(stats[phase] for stats in received) for phase in PHASES}
        return {
            "sync/version": version,
            **slowest,
            "sync/bytes": int(sum(stats["bytes"] for stats in received)),
            "sync/pause_s": max(stats["wait_s"] + stats["land_s"] for stats in received),
            "sync/verified": all(stats["verified"] for stats in received),
        }

    def _commits(
        self, engines: Sequence[Role[GeneratorEngine]], version: int
    ) -> list[Call[Mapping[str, float]]]:
        return [role.start(GeneratorEngine.commit_receive, version, self._method) for role in engines]

    def _start_probes(self, engines: Sequence[Role[GeneratorEngine]]) -> Probes:
        return self._probe.start([*self._policy.roles, *engines])

    def _compare(self, probes: Probes, version: int) -> dict[str, float]:
        self._wait(probes, f"probing version {version}")
        furthest = self._probe.check_synced(probes, policy=self._policy.roles, version=version)
        return {"sync/probe_abs_mean": furthest}

    def _fences(self) -> list[Call[dict[str, float]]]:
        return [role.start(PolicyRank.fence, self._method) for role in self._policy.roles]

    def _wait(self, calls: Sequence[Call[object]], doing: str) -> None:
        try:
            wait_for(calls, timeout_s=self._timeout_s, doing=doing, setting=TIMEOUT)
        except RoleError as error:
            if isinstance(error, RoleLost) and not error.is_late:
                raise
            # Those who answer, or fail, once nobody waits for the others any more were not the cause.
            self._give_up()
            within = f"{self._limit}, nor in the {GIVE_UP_S:g} s after it was given up"
            lost = silent_or_dead(calls, timeout_s=GIVE_UP_S, doing=doing, within=within)
            if lost is None:
                raise
            raise lost from error

    @property
    def _limit(self) -> str:
        return f"{self._timeout_s:g} s ({TIMEOUT})"


def _nothing() -> None:
    pass
