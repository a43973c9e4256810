"""Homes of roles, with what Ray says of its nodes played: who is waited for, who moves, and how it ends."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from rlstack.config.schema import Cluster
from rlstack.errors import ConfigError
from rlstack.orchestration import role_homes
from rlstack.orchestration.home import Home
from rlstack.orchestration.placement import Decision, Demand, Group, Node, Slot, place
from rlstack.orchestration.role_homes import ROOM_S, SILENT_S, RoleHomes
from rlstack.orchestration.roles import EngineLost, NodeLost, Role

DEMAND = Demand(
    policy=(Group("policy.tensor_parallel", 1),) * 2,
    engines=(Group("rollout.tensor_parallel", 1),) * 2,
    reward_models={},
)
SETTINGS = Cluster(address="10.0.0.1:6379", ranks_per_core=1)
A, B, C = (Node(id=f"n{i}", address=f"10.0.0.{i}", num_gpus=0, num_cores=2) for i in (1, 2, 3))


class Reservation:
    def __init__(self, decision: Decision, settings: Cluster, **other: Any) -> None:
        self.decision, self.secret = decision, other.get("secret") or "new"
        self.is_closed = False

    def home(self, slot: Slot) -> Home:
        node = self.decision.bundles[slot.bundle].node
        return Home(environment={"secret": self.secret}, node=node.id, address=node.address)

    def close(self) -> None:
        self.is_closed = True


class Ray:
    """What Ray knows; `events` happen at seconds of a clock that only sleeping moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.known, self.silent, self.free = {A.id, B.id, C.id}, set[str](), [A._replace(num_cores=0)]
        self.events: dict[float, Callable[[], object]] = {}
        self.said: list[str] = []
        self.checked: list[list[str]] = []
        self.reserved: list[Reservation] = []
        clock = SimpleNamespace(monotonic=lambda: self.now, sleep=self._sleep)
        monkeypatch.setattr(role_homes, "time", clock)
        monkeypatch.setattr(role_homes, "lost_nodes", lambda ids: {*ids} - self.known)
        monkeypatch.setattr(role_homes, "answers", lambda node, timeout_s: node not in self.silent)
        monkeypatch.setattr(role_homes, "all_nodes", lambda: [])
        monkeypatch.setattr(role_homes, "free_nodes", lambda nodes: self.free)
        monkeypatch.setattr(role_homes, "Reservation", self._reserve)

    def homes(self, check: Callable[[Decision], None] | None = None) -> RoleHomes:
        first = Reservation(place(DEMAND, [A, B], use_gpus=False, ranks_per_core=1), SETTINGS)
        self.reserved = [first]
        return RoleHomes(cast(Any, first), DEMAND, SETTINGS, check=check or self._check, say=self.said.append)

    def lose(self, node: Node) -> None:
        self.known.discard(node.id)

    def _check(self, decision: Decision) -> None:
        self.checked.append([bundle.node.address for bundle in decision.bundles])

    def _reserve(self, *args: Any, **kwargs: Any) -> Reservation:
        self.reserved.append(Reservation(*args, **kwargs))
        return self.reserved[-1]

    def _sleep(self, seconds: float) -> None:
        self.now += seconds
        for at in [at for at in self.events if at <= self.now]:
            self.events.pop(at)()


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Ray:
    return Ray(monkeypatch)


def roles(homes: RoleHomes, *names: str) -> list[Role]:
    return [cast(Role, SimpleNamespace(name=name, home=homes.of(name))) for name in names]


def addresses(homes: RoleHomes) -> list[str]:
    names = ("policy rank 0", "policy rank 1", "engine 0", "engine 1")
    return [homes.of(name).address for name in names]


def test_a_role_whose_node_lives_stays_and_nothing_is_waited_for(cluster: Ray) -> None:
    homes = cluster.homes()
    assert homes.settle(roles(homes, "engine 0")) == []
    assert addresses(homes) == [A.address] * 2 + [B.address] * 2
    assert cluster.now == 0 and cluster.said == [] and len(cluster.reserved) == 1


def test_a_run_with_its_own_ray_asks_nobody(cluster: Ray) -> None:
    homes = cluster.homes()
    cluster.known.clear()
    alone = SimpleNamespace(name="engine 0", home=Home())
    assert homes.settle([cast(Role, alone)]) == []


def test_a_lost_nodes_roles_move_together_once_and_keep_the_runs_secret(cluster: Ray) -> None:
    homes = cluster.homes()
    first, second = roles(homes, "engine 0", "engine 1")
    cluster.lose(B)
    cluster.free = [A._replace(num_cores=0), C]
    assert homes.settle([first]) == [C.address]
    assert addresses(homes) == [A.address] * 2 + [C.address] * 2
    assert homes.settle([second]) == [C.address]
    assert cluster.checked == [[A.address, C.address]]
    assert [each.secret for each in cluster.reserved] == ["new", "new"]
    assert homes.of("engine 0").environment == homes.of("policy rank 0").environment
    homes.close()
    assert all(each.is_closed for each in cluster.reserved)


def test_a_node_that_is_silent_for_a_while_is_waited_for(cluster: Ray) -> None:
    homes = cluster.homes()
    cluster.silent.add(B.id)
    cluster.events[30.0] = cluster.silent.clear
    assert homes.settle(roles(homes, "engine 0")) == []
    assert cluster.now == 30
    (line,) = cluster.said
    assert line.startswith(f"node {B.address} does not answer; waiting {SILENT_S:g} s")


@pytest.mark.parametrize(("given_up_at", "waited"), [(20.0, 20.0), (900.0, SILENT_S)])
def test_a_silent_node_is_lost_once_ray_says_so_or_the_limit_has_passed(
    cluster: Ray, given_up_at: float, waited: float
) -> None:
    homes = cluster.homes()
    first, second = roles(homes, "engine 0", "engine 1")
    cluster.silent.add(B.id)
    cluster.events[given_up_at] = lambda: cluster.lose(B)
    cluster.free = [B, C]  # that of the lost node is nobody's
    assert homes.settle([first]) == [C.address]
    assert homes.settle([second]) == [C.address]
    assert cluster.now == waited  # once for both


def test_all_nodes_of_the_policy_are_looked_at_whoever_failed_first(cluster: Ray) -> None:
    homes = cluster.homes()
    cluster.lose(A)
    cluster.free = [C]
    everyone = roles(homes, "policy rank 0", "policy rank 1", "engine 0")
    assert homes.settle(everyone) == [C.address]
    assert addresses(homes) == [C.address] * 2 + [B.address] * 2


def test_another_node_that_was_lost_as_well_is_left_at_the_same_time(cluster: Ray) -> None:
    homes = cluster.homes()
    cluster.lose(A)
    cluster.lose(B)
    cluster.free = [C._replace(num_cores=4)]
    assert homes.settle(roles(homes, "engine 0")) == [C.address]
    assert addresses(homes) == [C.address] * 4


def test_a_node_that_comes_back_in_time_is_used(cluster: Ray) -> None:
    homes = cluster.homes()
    cluster.lose(B)
    back = B._replace(id="new")
    cluster.events[5.0] = lambda: cluster.free.append(back)
    assert homes.settle(roles(homes, "engine 0")) == [B.address]
    assert homes.of("engine 0").node == "new" and cluster.now == 5


def test_without_room_the_run_ends_within_a_minute_naming_the_node(cluster: Ray) -> None:
    homes = cluster.homes()
    cluster.lose(B)
    with pytest.raises(NodeLost, match=f"node {B.address} was lost, with engine 0, engine 1 on it.*--resume"):
        homes.settle(roles(homes, "engine 0"))
    assert cluster.now == ROOM_S < 60
    assert len(cluster.said) == 1 and len(cluster.reserved) == 1


@pytest.mark.parametrize(
    "problem",
    [ConfigError("policy.model = /m: is not there\nrun.dir: cannot write"), RuntimeError("is late")],
)
def test_a_node_that_cannot_take_over_ends_the_run_in_one_sentence(cluster: Ray, problem: Exception) -> None:
    def refuse(decision: Decision) -> None:
        raise problem

    homes = cluster.homes(refuse)
    cluster.lose(B)
    cluster.free = [C]
    with pytest.raises(NodeLost) as error:
        homes.settle(roles(homes, "engine 0"))
    why = "; ".join(str(problem).splitlines())
    assert f"and {C.address} cannot take its place: {why}; add a node" in str(error.value)
    assert "\n" not in str(error.value)
    assert addresses(homes)[2] == B.address  # nothing has moved


def test_a_role_that_fails_at_the_start_is_explained_by_its_lost_node(cluster: Ray) -> None:
    homes = cluster.homes()
    (engine,) = roles(homes, "engine 1")
    cluster.lose(B)
    failed = EngineLost("loading the engine: engine 1 died", role=engine)
    with (
        pytest.raises(
            NodeLost, match=r"node 10.0.0.2 was lost.*engine 1 died; .*start Ray on 10.0.0.2 again"
        ),
        homes.naming_lost_nodes(),
    ):
        raise failed


def test_a_role_that_fails_at_the_start_on_a_living_node_keeps_its_own_error(cluster: Ray) -> None:
    homes = cluster.homes()
    failed = EngineLost("loading the engine: engine 1 died", role=roles(homes, "engine 1")[0])
    with pytest.raises(EngineLost) as raised, homes.naming_lost_nodes():
        raise failed
    assert raised.value is failed and cluster.now == 0
