"""The comparison of the layers that policy and engines quantise, where both compute in FP8."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet

from rlstack.config.precision import rollout_precision
from rlstack.config.schema import Precision, RunConfig
from rlstack.errors import ConfigError
from rlstack.orchestration.roles import Role, wait_for

_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")
SHOWN = 6  # kinds of layers that a message lists


def check_quantised(config: RunConfig, engines: Sequence[Role], *, policy: Sequence[Role]) -> None:
    """Compare what the roles quantise, before anything is sampled; nothing unless both sides are in FP8.

    Raises ConfigError naming the layers that differ; RoleLost if a role fails, dies or does not answer within
    transfer.timeout_s.
    """
    if not (config.policy.precision is rollout_precision(config) is Precision.fp8):
        return
    calls = {role: role.start("quantised_weights") for role in (*policy, *engines)}
    found = wait_for(
        calls,
        timeout_s=config.transfer.timeout_s,
        doing="listing the quantised layers",
        setting="transfer.timeout_s",
    )
    ours = {name for role in policy for name in found[role]}
    for role in engines:
        if (problem := difference(ours, set(found[role]), engine=role.title)) is not None:
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
