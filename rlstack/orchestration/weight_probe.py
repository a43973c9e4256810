"""Comparisons of policy and engines: the logprobs that they compute, and the layers that they quantise.

Digests say that the right bytes arrived; the probe, that they are computed with. Of version 0, which nothing
sends, it is all that holds an engine's weights against the policy's.
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet

from rlstack.config.precision import probe_limit, rollout_precision
from rlstack.config.schema import Precision, RunConfig
from rlstack.errors import ConfigError
from rlstack.orchestration.protocols import Logprobs, Probed
from rlstack.orchestration.roles import Call, Role, wait_for
from rlstack.transfer.errors import TransferError

Probes = Sequence[Call[Logprobs | None]]

_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")
SHOWN = 6  # kinds of layers that a message lists


class Probe:
    """The logprobs of a fixed text, on both sides; its limit is that of the less precise of them."""

    def __init__(self, token_ids: Sequence[int], config: RunConfig) -> None:
        self._token_ids = list(token_ids)
        self._limit = probe_limit(config)
        self._timeout_s = config.transfer.timeout_s
        self._model = config.policy.model
        self._loaded: Logprobs | None = None  # the policy's, of version 0

    def start(self, roles: Sequence[Role[Probed]]) -> Probes:
        """Let `roles` compute; their calls, whose results are Logprobs of engines and of one policy rank."""
        return [role.start(Probed.probe, self._token_ids) for role in roles]

    def check_synced(self, probes: Probes, *, policy: Sequence[Role[Probed]], version: int) -> float:
        """The mean distance, in nats, of the engine that is furthest from the policy after a sync.

        probes: calls that are done, of the engines and of all ranks of `policy`.

        Raises TransferError if that is further than arithmetic explains.
        """
        furthest, distance = _furthest(_of_engines(probes, policy), _of_policy(probes, policy))
        if not distance <= self._limit:
            raise TransferError(
                f"version {version} has arrived, but {furthest.title} does not compute with it: "
                f"{self._apart(distance)}"
            )
        return distance

    def check_loaded(self, engines: Sequence[Role[Probed]], *, policy: Sequence[Role[Probed]]) -> None:
        """Compare version 0 as `engines` have loaded it with version 0 of the policy.

        The first time the policy has to hold it too. Its logprobs are kept, for engines that are replaced
        once the policy has gone on.

        Raises TransferError naming the engine that is too far from the policy; RoleLost if a role fails, dies
        or does not answer within transfer.timeout_s, after which this can be called again.
        """
        probes = self.start([*(policy if self._loaded is None else ()), *engines])
        wait_for(probes, timeout_s=self._timeout_s, doing="probing version 0", setting="transfer.timeout_s")
        if self._loaded is None:
            self._loaded = _of_policy(probes, policy)
        furthest, distance = _furthest(_of_engines(probes, policy), self._loaded)
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


def _of_policy(probes: Probes, policy: Sequence[Role[Probed]]) -> Logprobs:
    found = [probe.result for probe in probes if probe.role in policy]
    (ours,) = (logprobs for logprobs in found if logprobs is not None)
    return ours


def _of_engines(probes: Probes, policy: Sequence[Role[Probed]]) -> dict[Role[object], Logprobs]:
    """The logprobs of the roles that are not of `policy`; every engine has some."""
    found = ((probe.role, probe.result) for probe in probes if probe.role not in policy)
    return {role: logprobs for role, logprobs in found if logprobs is not None}


def _furthest(engines: Mapping[Role[object], Logprobs], ours: Logprobs) -> tuple[Role[object], float]:
    """The engine whose logprobs are furthest from `ours`, NaN furthest of all, and their mean distance."""
    distances = {role: _distance(ours, theirs) for role, theirs in engines.items()}
    furthest = max(distances, key=lambda role: (math.isnan(distances[role]), distances[role]))
    return furthest, distances[furthest]


def _distance(ours: Logprobs, theirs: Logprobs) -> float:
    """0 for a text of one token, which has nothing to compare."""
    apart = [abs(a - b) for a, b in zip(ours, theirs, strict=True)]
    return statistics.fmean(apart) if apart else 0.0


def check_quantised(
    config: RunConfig, engines: Sequence[Role[Probed]], *, policy: Sequence[Role[Probed]]
) -> None:
    """Compare what the roles quantise, before anything is sampled; nothing unless both sides are in FP8.

    Raises ConfigError naming the layers that differ; RoleLost if a role fails, dies or does not answer within
    transfer.timeout_s.
    """
    if not (config.policy.precision is rollout_precision(config) is Precision.fp8):
        return
    names = wait_for(
        [role.start(Probed.quantised_weights) for role in (*policy, *engines)],
        timeout_s=config.transfer.timeout_s,
        doing="listing the quantised layers",
        setting="transfer.timeout_s",
    )
    ours = {name for of_rank in names[: len(policy)] for name in of_rank}
    for role, theirs in zip(engines, names[len(policy) :], strict=True):
        if (problem := difference(ours, set(theirs), engine=role.title)) is not None:
            raise ConfigError(problem)


def difference(policy: AbstractSet[str], engine_weights: AbstractSet[str], *, engine: str) -> str | None:
    """How two sets of quantised weights, Hugging Face names, differ, as a message; None if they are equal."""
    alone = {engine: engine_weights - policy, "the policy": policy - engine_weights}
    texts = [f"{side} alone {_layers(names)}" for side, names in alone.items() if names]
    if not texts:
        return None
    return (
        f"policy.precision = rollout.precision = fp8: {engine} and the policy quantise different layers: "
        f"{'; '.join(texts)}; the same layers are accepted: set rollout.precision=bf16, or give all nodes "
        "the same packages"
    )


def _layers(names: Iterable[str]) -> str:
    """Kinds of weights with the numbers of their layers: "self_attn.q_proj.weight of layers 0, 1"."""
    kinds: dict[str, list[int]] = {}
    for name in names:
        number = _NUMBER.search(name)
        kind = name if number is None else name[number.end() + 1 :]
        kinds.setdefault(kind, []).extend([] if number is None else [int(number[0])])
    shown = [
        f"{kind} of layers {_ranges(sorted(numbers))}" if numbers else kind
        for kind, numbers in sorted(kinds.items())
    ]
    rest = f" and {len(shown) - SHOWN} kinds more" if len(shown) > SHOWN else ""
    return f"{', '.join(shown[:SHOWN])}{rest}"


def _ranges(numbers: Sequence[int]) -> str:
    """[0, 1, 2, 5] as "0-2, 5"."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(low) if low == high else f"{low}-{high}" for low, high in runs)
