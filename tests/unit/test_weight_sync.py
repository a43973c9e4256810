"""A sync of which nothing comes names the limit that has passed, and who let it pass."""

from __future__ import annotations

from typing import Any, cast
from unittest import mock

import pytest

from rlstack.config.schema import Rollout, RunConfig, Transfer, TransferMethod
from rlstack.orchestration import roles, weight_sync
from rlstack.orchestration.home import Home
from rlstack.orchestration.protocols import GeneratorEngine
from rlstack.orchestration.role_host import Answer
from rlstack.orchestration.roles import Call, EngineLost, PolicyLost, RoleError
from rlstack.orchestration.weight_sync import GIVE_UP_S, Ordered, WeightSync
from rlstack.telemetry.clocks import Reading, RoleClock

FIGURES = dict.fromkeys(("receive_s", "wait_s", "land_s", "bytes", "verified"), 1.0)


class Role:
    """Stands for a role; the references of its calls are its name and the method."""

    def __init__(self, name: str, lost: type[EngineLost | PolicyLost]) -> None:
        self.name = self.title = name
        self.lost, self.log, self.home, self.clock = lost, "x", Home(), RoleClock(name)
        self.called: list[tuple[str, tuple[Any, ...]]] = []

    def start(self, method: Any, /, *args: Any, **kwargs: Any) -> Call[Any]:
        self.called.append((method.__name__, args))
        return Call(cast(Any, self), cast(Any, f"{self.name}: {method.__name__}"))

    start_beside = start


class Group:
    """The policy, or the engines."""

    version = 0

    def __init__(self, *members: Role) -> None:
        self.roles = list(members)

    def serve(self, version: int) -> None:
        """Nothing has to be put in the weights' place."""

    end_serving = mock.Mock()


class Store:
    port = 20000


class Ray:
    """Stands for ray: of what was called, only the policy's comes, and only once the others were given up."""

    def __init__(self) -> None:
        self.waited_s: list[float] = []

    def wait(self, refs: list[str], *, num_returns: int, timeout: float) -> tuple[list[str], list[str]]:
        self.waited_s.append(timeout)
        done = [ref for ref in refs if ref.startswith("policy") and timeout == GIVE_UP_S]
        return done, [ref for ref in refs if ref not in done]

    def get(self, ref: str, *, timeout: float) -> Answer:
        return Answer(None, [], [], Reading("10.0.0.2", 0.0, 0.0, 0.0))


@pytest.fixture
def sync(monkeypatch: pytest.MonkeyPatch) -> WeightSync:
    policy, engines = Group(Role("policy rank 0", PolicyLost)), Group(Role("engine 0", EngineLost))
    monkeypatch.setattr(roles, "ray", Ray())
    monkeypatch.setattr(weight_sync, "serve_store", lambda *_, **__: Store())
    with monkeypatch.context() as all_well:
        all_well.setattr(weight_sync, "wait_for", lambda calls, **_: None)
        return WeightSync(
            cast(Any, policy),
            cast(Any, engines),
            RunConfig(transfer=Transfer(timeout_s=15.0)),
            host="127.0.0.1",
            probe=[0, 1],
        )


def test_the_limit_that_passed_is_named_with_the_settings_own_value(sync: WeightSync) -> None:
    with pytest.raises(EngineLost) as lost:
        sync.commit(4)
    assert str(lost.value) == (
        "syncing version 4: no answer from engine 0 within 15 s (transfer.timeout_s), nor in the 20 s after "
        "it was given up"
    )
    assert cast(Any, roles.ray).waited_s == [pytest.approx(15.0, abs=1.0), GIVE_UP_S]


def test_a_transfer_that_fails_is_what_is_raised_and_not_its_own_cause(
    sync: WeightSync, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = RoleError("opening the weight transfer: engine 0 failed: cannot connect to 10.0.0.1 port 20001")

    def wait_for(*_: Any, **__: Any) -> None:
        raise failed

    monkeypatch.setattr(weight_sync, "wait_for", wait_for)
    monkeypatch.setattr(weight_sync, "silent_or_dead", lambda *_, **__: None)
    with pytest.raises(RoleError) as error:
        sync.commit(4)
    assert error.value is failed and failed.__cause__ is None


def test_a_round_that_others_gave_up_names_no_setting(sync: WeightSync) -> None:
    (engine,) = sync._engines.roles
    commit = engine.start(GeneratorEngine.commit_receive, 6, TransferMethod.reshard)
    sync.under_way = Ordered(6, commits=[commit])
    lost = sync.who_is_lost()
    assert str(lost) == "syncing version 6: no answer from engine 0 within the 20 s after it was given up"


@pytest.mark.parametrize("method", TransferMethod)
def test_an_engine_in_the_place_of_another_is_met_once(
    monkeypatch: pytest.MonkeyPatch, method: TransferMethod
) -> None:
    """Counted: openings of the transfer, until the next round of all."""
    policy = Role("policy rank 0", PolicyLost)
    engines = [Role(f"engine {index}", EngineLost) for index in range(3)]
    monkeypatch.setattr(weight_sync, "serve_store", lambda *_, **__: Store())
    monkeypatch.setattr(weight_sync, "wait_for", lambda calls, **_: None)
    monkeypatch.setattr(Call, "result", FIGURES)
    monkeypatch.setattr(weight_sync.Probe, "check_synced", lambda *_, **__: 0.0)
    config = RunConfig(transfer=Transfer(method=method), rollout=Rollout(tensor_parallel=2))
    sync = WeightSync(
        cast(Any, Group(policy)), cast(Any, Group(*engines)), config, host="127.0.0.1", probe=[0, 1]
    )
    fresh = engines[1]  # that the group has in the place of another one now
    sync.run(3)
    for role in (policy, *engines):
        role.called.clear()
    sync.bring(3, [fresh])
    sync.run(6)
    openings = {role.name: [name for name, _ in role.called].count("open_transfer") for role in engines}
    sends = [arguments[-1] for name, arguments in policy.called if name == "begin_send"]
    if method is TransferMethod.reshard:
        assert openings == {"engine 0": 1, "engine 1": 1, "engine 2": 1}
        assert sends == [[2, 3], None]
        assert [arguments[-1] for name, arguments in fresh.called if name == "begin_receive"] == sends
    else:  # whose broadcasts reach everyone with whom it is open
        assert openings == {"engine 0": 1, "engine 1": 2, "engine 2": 1}
        assert sends == [None, None]
