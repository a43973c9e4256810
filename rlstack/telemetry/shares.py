"""From what every role did in a step to the few shares of it that metrics.jsonl has. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence

from rlstack.telemetry.occupancy import Occupancy, Piece
from rlstack.telemetry.waiting import Kind, kind_of

SAMPLING = "generate"  # an engine's phase


def step_shares(accounted: Mapping[str, Sequence[Piece]]) -> dict[str, float]:
    """busy/{roles} and idle/{roles} of each kind, means over its processes, and wait/{reason} of the policy.

    What is left of a kind's time it waited; busy/policy, idle/policy and all wait/{reason} add up to 1.
    """
    of_kind: dict[Kind, list[Occupancy]] = {}
    for role, pieces in accounted.items():
        of_kind.setdefault(kind_of(role), []).append(Occupancy.of(pieces))
    shares: dict[str, float] = {}
    for kind, members in of_kind.items():
        shares[f"busy/{kind}"] = _mean_share(members, [sum(each.busy_s.values()) for each in members])
        if kind is not Kind.controller:
            shares[f"idle/{kind}"] = _mean_share(members, [each.idle_s for each in members])
    policy = of_kind.get(Kind.policy, [])
    for reason in sorted({reason for each in policy for reason in each.waiting_s}):
        shares[f"wait/{reason}"] = _mean_share(policy, [each.waiting_s.get(reason, 0.0) for each in policy])
    return shares


def sampling_s(accounted: Mapping[str, Sequence[Piece]]) -> dict[str, float]:
    """time/sampling_s, in which the engines sampled, as a mean over them; {} without an engine."""
    engines = [Occupancy.of(pieces) for role, pieces in accounted.items() if kind_of(role) is Kind.engine]
    if not engines:
        return {}
    return {"time/sampling_s": statistics.fmean(each.busy_s.get(SAMPLING, 0.0) for each in engines)}


def _mean_share(members: Iterable[Occupancy], seconds: Iterable[float]) -> float:
    return statistics.fmean(
        part / each.total_s if each.total_s else 0.0 for each, part in zip(members, seconds, strict=True)
    )
