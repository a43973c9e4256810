"""Roles whose node was lost: they stay, they get other homes, or the run ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from rlstack.orchestration.home import Home
from rlstack.orchestration.placement import Demand, Group, Node, place
from rlstack.orchestration.relocation import Move, decide, decision_of, nodes_of, part_of, slots
from rlstack.orchestration.roles import NodeLost, RoleLost

POLICY, ENGINE, COPY = "policy.tensor_parallel", "rollout.tensor_parallel", "reward.models[0].tensor_parallel"


def node(number: int, free: int) -> Node:
    return Node(id=f"n{number}", address=f"10.0.0.{number}", num_gpus=free, num_cores=free)


def demand(*, groups: int = 1, tp: int = 2, engines: int = 1, copies: int = 0, **other: bool) -> Demand:
    return Demand(
        policy=(Group(POLICY, tp),) * groups,
        engines=(Group(ENGINE, 2),) * engines,
        reward_models={"judge": (Group(COPY, 1),) * copies},
        **other,
    )


def homes(wanted: Demand, nodes: Sequence[Node]) -> dict[str, Home]:
    """As a run places its roles when it starts."""
    decision = place(wanted, nodes, use_gpus=True, ranks_per_core=1)
    found = zip(part_of(wanted).roles, slots(decision), strict=True)
    where = {role: decision.bundles[slot.bundle].node for role, slot in found}
    return {role: Home(node=node.id, address=node.address) for role, node in where.items()}


def decided(
    wanted: Demand,
    at: Mapping[str, Home],
    lost: Mapping[str, str],
    free: Sequence[Node],
    *,
    use_gpus: bool = True,
) -> Move | None:
    return decide(wanted, at, lost, free, use_gpus=use_gpus, ranks_per_core=1)


def addresses(move: Move | None) -> dict[str, str]:
    assert move is not None
    nodes = move.decision.bundles
    return {role: nodes[slot.bundle].node.address for role, slot in move.slots.items()}


def test_roles_have_the_names_of_their_slots() -> None:
    wanted = demand(groups=2, tp=2, engines=2, copies=2)
    ranks = [f"policy rank {rank}" for rank in range(4)]
    copies = ["reward model judge 0", "reward model judge 1"]
    assert part_of(wanted).roles == (*ranks, "engine 0", "engine 1", *copies)
    assert part_of(wanted).demand == wanted
    assert len(slots(place(wanted, [node(1, 16)], use_gpus=True, ranks_per_core=1))) == 8


def test_a_node_that_lives_or_holds_nothing_moves_nobody() -> None:
    wanted = demand()
    at = homes(wanted, [node(1, 2), node(2, 2)])
    assert decided(wanted, at, {}, [node(1, 0), node(2, 0)]) is None
    assert decided(wanted, at, {"n9": "10.0.0.9"}, [node(3, 8)]) is None


def test_an_engine_moves_to_the_node_that_has_room_and_the_others_stay() -> None:
    wanted = demand(engines=2)
    at = homes(wanted, [node(1, 4), node(2, 2)])
    assert at["engine 1"].node == "n2"
    free = [node(1, 0), node(2, 2), node(3, 1), node(4, 2)]
    assert addresses(decided(wanted, at, {"n2": "10.0.0.2"}, free)) == {"engine 1": "10.0.0.4"}


def test_the_whole_after_a_move_names_each_node_once() -> None:
    wanted = demand(engines=2, copies=1)
    first = place(wanted, [node(1, 5), node(2, 2)], use_gpus=True, ranks_per_core=1)
    at = nodes_of(Move(dict(zip(part_of(wanted).roles, slots(first), strict=True)), first))
    whole = decision_of(
        wanted, at | {"engine 1": node(1, 0)}, use_gpus=True
    )  # with another count of what is free
    assert [bundle.node.id for bundle in whole.bundles] == ["n1"]
    assert (len(whole.policy), len(whole.engines), len(whole.reward_models["judge"])) == (2, 2, 1)
    apart = decision_of(wanted, at, use_gpus=True)
    assert [slot.bundle for slot in (*apart.policy, *apart.engines)] == [0, 0, 0, 1]


def test_a_node_that_came_back_is_another_one() -> None:
    wanted = demand()
    at = homes(wanted, [node(1, 2), node(2, 2)])
    back = Node(id="new", address="10.0.0.2", num_gpus=2, num_cores=2)
    move = decided(wanted, at, {"n2": "10.0.0.2"}, [node(1, 0), back])
    assert move is not None and [bundle.node.id for bundle in move.decision.bundles] == ["new"]


def test_the_groups_of_a_policy_on_the_lost_node_stay_whole() -> None:
    wanted = demand(groups=2, tp=2, engines=1)
    at = homes(wanted, [node(1, 2), node(2, 2), node(3, 2)])
    assert [at[f"policy rank {rank}"].node for rank in range(4)] == ["n1", "n1", "n2", "n2"]
    lost = {"n2": "10.0.0.2"}
    move = decided(wanted, at, lost, [node(1, 0), node(3, 0), node(4, 2)])
    assert addresses(move) == {"policy rank 2": "10.0.0.4", "policy rank 3": "10.0.0.4"}
    with pytest.raises(NodeLost, match="with policy rank 2, policy rank 3 on it"):
        decided(wanted, at, lost, [node(4, 1), node(5, 1)])


def test_what_shares_gpus_goes_to_one_node_and_shares_them_there() -> None:
    wanted = demand(groups=1, tp=2, engines=1, copies=1, colocated=True)
    at = homes(wanted, [node(1, 2), node(2, 1)])
    assert at["reward model judge 0"].node == "n2"
    move = decided(wanted, at, {"n1": "10.0.0.1"}, [node(2, 0), node(3, 2)])
    assert move is not None and {bundle.num_gpus for bundle in move.decision.bundles} == {2}
    assert move.slots["engine 0"].gpus == (0, 1)
    assert [move.slots[f"policy rank {rank}"].gpus for rank in range(2)] == [(0,), (1,)]
    alone = decided(wanted, at, {"n2": "10.0.0.2"}, [node(1, 0), node(3, 1)])
    assert addresses(alone) == {"reward model judge 0": "10.0.0.3"}


@pytest.mark.parametrize(("use_gpus", "free"), [(True, "1 GPUs"), (False, "1 cores")])
def test_without_room_the_error_names_node_roles_and_remedy(use_gpus: bool, free: str) -> None:
    wanted = demand(engines=1, copies=1)
    at = homes(wanted, [node(1, 3), node(2, 2)])
    left = [node(1, 1), node(2, 2)]  # Ray may still count the lost one
    with pytest.raises(NodeLost) as error:
        decided(wanted, at, {"n2": "10.0.0.2"}, left, use_gpus=use_gpus)
    assert str(error.value).startswith("node 10.0.0.2 was lost, with engine 0 on it, and no other node has")
    assert f"(free: {free} of 10.0.0.1)" in str(error.value)
    assert str(error.value).endswith(
        "add a node, or start Ray on 10.0.0.2 again, and launch the run again with --resume"
    )
    assert not isinstance(error.value, RoleLost)  # or it would be replaced again


def test_many_roles_are_counted_not_listed() -> None:
    wanted = demand(groups=8, tp=1, engines=1)
    at = homes(wanted, [node(1, 10)])
    with pytest.raises(NodeLost, match=r"policy rank 3 and 5 more roles on it.*\(free: none\)"):
        decided(wanted, at, {"n1": "10.0.0.1"}, [])
