"""An engine that computes otherwise than the policy is named, of whatever version, the furthest first."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from rlstack.config.schema import Policy, Precision, RunConfig
from rlstack.orchestration import weight_probe
from rlstack.orchestration.home import Home
from rlstack.orchestration.protocols import Probed
from rlstack.orchestration.weight_probe import Probe
from rlstack.transfer.errors import TransferError

TOKENS = (5, 6, 7)


class Role:
    """Computes these logprobs whenever it is told to."""

    def __init__(self, name: str, logprobs: tuple[float, ...] | None) -> None:
        self.name = self.title = name
        self.home = Home()
        self.logprobs = logprobs
        self.started = 0

    def start(self, method: object, token_ids: list[int]) -> SimpleNamespace:
        assert (method, tuple(token_ids)) == (Probed.probe, TOKENS)
        self.started += 1
        return self.call()

    def call(self, logprobs: tuple[float, ...] | None = None) -> SimpleNamespace:
        """One that is done, with other logprobs than the role's if some are given."""
        return SimpleNamespace(role=self, result=logprobs or self.logprobs)


@pytest.fixture
def probe(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Probe]:
    def wait_for(calls: Sequence[Any], **limits: Any) -> None:
        assert limits["setting"] == "transfer.timeout_s"

    monkeypatch.setattr(weight_probe, "wait_for", wait_for)
    return lambda precision=Precision.fp32: Probe(
        TOKENS, RunConfig(policy=Policy(model="/models/8b", precision=precision))
    )


def ranks() -> list[Any]:
    """One rank of the policy computes the logprobs."""
    return [Role("policy rank 0", None), Role("policy rank 1", (-1.0, -2.0))]


def test_engines_that_have_loaded_the_policys_weights_pass(probe: Callable[..., Probe]) -> None:
    engines: list[Any] = [Role(f"engine {i}", (-1.0 + 1e-6 * i, -2.0)) for i in range(2)]
    probe().check_loaded(engines, policy=ranks())
    assert [engine.started for engine in engines] == [1, 1]


def test_an_engine_that_has_loaded_other_weights_is_named(probe: Callable[..., Probe]) -> None:
    engines: list[Any] = [Role("engine 0", (-1.0, -2.0)), Role("engine 1", (-1.3, -2.1))]
    with pytest.raises(TransferError) as error:
        probe().check_loaded(engines, policy=ranks())
    assert str(error.value) == (
        "engine 1 has loaded other weights than the policy from /models/8b, or computes differently: its "
        "logprobs of the probe are 0.2 nats from the policy's, where 0.001 is accepted; give all nodes the "
        "same files, the same packages and the same source of rlstack"
    )


def test_the_limit_is_that_of_the_precision(probe: Callable[..., Probe]) -> None:
    engines: list[Any] = [Role("engine 0", (-1.05, -2.05))]
    probe(Precision.bf16).check_loaded(engines, policy=ranks())
    with pytest.raises(TransferError, match=r"where 0\.06 is accepted"):
        probe(Precision.bf16).check_loaded([Role("engine 0", (-1.2, -2.2))], policy=ranks())  # type: ignore[list-item]


def test_an_engine_that_is_replaced_later_is_held_against_what_the_policy_had_at_first(
    probe: Callable[..., Probe],
) -> None:
    held, policy = probe(), ranks()
    held.check_loaded([Role("engine 0", (-1.0, -2.0))], policy=policy)  # type: ignore[list-item]
    policy[1].logprobs = (-3.0, -4.0)  # it has been trained since
    held.check_loaded([Role("engine 0", (-1.0, -2.0))], policy=policy)  # type: ignore[list-item]
    assert [rank.started for rank in policy] == [1, 1]
    with pytest.raises(TransferError, match="engine 0 has loaded other weights"):
        held.check_loaded([Role("engine 0", (-3.0, -4.0))], policy=policy)  # type: ignore[list-item]


def test_after_a_sync_the_furthest_engine_is_named_and_nan_is_furthest(probe: Callable[..., Probe]) -> None:
    policy, engines = ranks(), [Role(f"engine {i}", (-1.0, -2.0)) for i in range(3)]
    probes: list[Any] = [role.call() for role in (*policy, *engines)]
    assert probe().check_synced(probes, policy=policy, version=4) == 0.0
    probes[3] = engines[1].call((-1.0021, -2.0))
    with pytest.raises(
        TransferError, match=r"version 4 has arrived, but engine 1 does not .* are 0\.001 nats"
    ):
        probe(Precision.fp32).check_synced(probes, policy=policy, version=4)
    probes[4] = engines[2].call((math.nan, -2.0))
    with pytest.raises(TransferError, match=r"engine 2 does not compute with it: .* are nan nats"):
        probe().check_synced(probes, policy=policy, version=4)


def test_a_text_of_one_token_compares_nothing(probe: Callable[..., Probe]) -> None:
    policy: list[Any] = [Role("policy rank 0", ())]
    probe().check_loaded([Role("engine 0", ())], policy=policy)  # type: ignore[list-item]
