"""The probe: whether policy and engines compute the same logprobs with the weights that they hold.

Digests say that the right bytes arrived; the probe, that they are computed with. Of version 0, which nothing
sends, it is all that holds an engine's weights against the policy's.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from rlstack.config.precision import probe_limit
from rlstack.config.schema import RunConfig
from rlstack.orchestration.roles import Role, wait_for
from rlstack.transfer.errors import TransferError

Logprobs = tuple[float, ...]  # of the probe's tokens after the first


class Probe:
    """The logprobs of a fixed text, on both sides; its limit is that of the less precise of them."""

    def __init__(self, token_ids: Sequence[int], config: RunConfig) -> None:
        self._token_ids = list(token_ids)
        self._limit = probe_limit(config)
        self._timeout_s = config.transfer.timeout_s
        self._model = config.policy.model
        self._loaded: Logprobs | None = None  # the policy's, of version 0

    def start(self, roles: Sequence[Role]) -> dict[Role, Any]:
        """Let `roles` compute; their calls, whose results are Logprobs of engines and of one policy rank."""
        return {role: role.start("probe", self._token_ids) for role in roles}

    def check_synced(self, results: Mapping[Role, Any], *, policy: Sequence[Role], version: int) -> float:
        """The mean distance, in nats, of the engine that is furthest from the policy after a sync.

        results: Logprobs of the engines and of one rank of `policy`; None of its other ranks.

        Raises TransferError if that is further than arithmetic explains.
        """
        engines = {role: theirs for role, theirs in results.items() if role not in policy}
        furthest, distance = _furthest(engines, _of_policy(results, policy))
        if not distance <= self._limit:
            raise TransferError(
                f"version {version} has arrived, but {furthest.title} does not compute with it: "
                f"{self._apart(distance)}"
            )
        return distance

    def check_loaded(self, engines: Sequence[Role], *, policy: Sequence[Role]) -> None:
        """Compare version 0 as `engines` have loaded it with version 0 of the policy.

        The first time the policy has to hold it too. Its logprobs are kept, for engines that are replaced
        once the policy has gone on.

        Raises TransferError naming the engine that is too far from the policy; RoleLost if a role fails, dies
        or does not answer within transfer.timeout_s, after which this can be called again.
        """
        calls = self.start([*(policy if self._loaded is None else ()), *engines])
        results = wait_for(
            calls, timeout_s=self._timeout_s, doing="probing version 0", setting="transfer.timeout_s"
        )
        if self._loaded is None:
            self._loaded = _of_policy(results, policy)
        furthest, distance = _furthest({role: results[role] for role in engines}, self._loaded)
        if not distance <= self._limit:
            raise TransferError(
                f"{furthest.title} has loaded other weights than the policy from {self._model}, or computes "
                f"differently: {self._apart(distance)}; give all nodes the same files, the same packages and "
                "the same source of rlstack"
            )

    def _apart(self, distance: float) -> str:
        return (
            f"its logprobs of the probe are {distance:.2g} nats from the policy's, where {self._limit:g} is "
            "accepted"
        )


def _of_policy(results: Mapping[Role, Any], policy: Sequence[Role]) -> Logprobs:
    ours: Logprobs
    (ours,) = (logprobs for role in policy if (logprobs := results[role]) is not None)
    return ours


def _furthest(engines: Mapping[Role, Logprobs], ours: Logprobs) -> tuple[Role, float]:
    """The engine whose logprobs are furthest from `ours`, NaN furthest of all, and their mean distance."""
    distances = {role: _distance(ours, theirs) for role, theirs in engines.items()}
    furthest = max(distances, key=lambda role: (math.isnan(distances[role]), distances[role]))
    return furthest, distances[furthest]


def _distance(ours: Logprobs, theirs: Logprobs) -> float:
    """0 for a text of one token, which has nothing to compare."""
    apart = [abs(a - b) for a, b in zip(ours, theirs, strict=True)]
    return statistics.fmean(apart) if apart else 0.0
