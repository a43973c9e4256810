"""The new places of roles whose node was lost: a pure decision.

All that was on the node is placed together, by the rules of placement.py, on what the other nodes have free;
what was on other nodes stays.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

from rlstack.errors import ConfigError
from rlstack.orchestration.home import Home
from rlstack.orchestration.placement import Bundle, Decision, Demand, Group, Node, Slot, place
from rlstack.orchestration.roles import NodeLost

MOST_NAMES = 4  # of roles, in a message


class Part(NamedTuple):
    """The demand of some of a run's roles."""

    demand: Demand
    roles: tuple[str, ...]  # their names, in the order of `slots`


class Move(NamedTuple):
    """Roles that get another home, each at its slot of a decision."""

    slots: Mapping[str, Slot]  # by the role's name
    decision: Decision


def part_of(demand: Demand, is_in: Callable[[str], bool] = lambda role: True) -> Part:
    """The part of `demand` that is for the roles for which `is_in` holds; by default for all."""
    roles: list[str] = []

    def chosen(groups: Sequence[Group], name: str, ranks: int = 1) -> tuple[Group, ...]:
        """Those of `groups` whose roles are in; `ranks`: the roles of each."""
        found = []
        for i, group in enumerate(groups):
            names = [f"{name} {i * ranks + rank}" for rank in range(ranks)]
            if is_in(names[0]):
                found.append(group)
                roles.extend(names)
        return tuple(found)

    part = Demand(
        policy=chosen(demand.policy, "policy rank", demand.policy[0].size if demand.policy else 1),
        engines=chosen(demand.engines, "engine"),
        reward_models={
            name: chosen(copies, f"reward model {name}") for name, copies in demand.reward_models.items()
        },
        colocated=demand.colocated,
    )
    return Part(part, tuple(roles))


def slots(decision: Decision) -> list[Slot]:
    """Those of the policy's ranks, of the engines and of the copies of reward models, in this order."""
    copies = [slot for of_model in decision.reward_models.values() for slot in of_model]
    return [*decision.policy, *decision.engines, *copies]


def decide(
    demand: Demand,
    homes: Mapping[str, Home],
    lost: Mapping[str, str],
    free: Sequence[Node],
    *,
    use_gpus: bool,
    ranks_per_core: int,
) -> Move | None:
    """The move of all roles whose home is on a lost node; None if there is none, and each stays at its home.

    Args:
        homes: of all roles, by name.
        lost: addresses of the lost nodes by Ray's ids.
        free: the nodes that Ray knows, with what nobody has reserved of them.

    Raises NodeLost if the other nodes have no room for them.
    """
    part = part_of(demand, lambda role: homes[role].node in lost)
    if not part.roles:
        return None
    others = [node for node in free if node.id not in lost]
    try:
        decision = place(part.demand, others, use_gpus=use_gpus, ranks_per_core=ranks_per_core)
    except ConfigError:
        there = {homes[role].address for role in part.roles}
        raise NodeLost(_no_room(there, part.roles, others, use_gpus)) from None
    return Move(dict(zip(part.roles, slots(decision), strict=True)), decision)


def nodes_of(move: Move) -> dict[str, Node]:
    """The node of each role of `move`, by its name."""
    return {role: move.decision.bundles[slot.bundle].node for role, slot in move.slots.items()}


def decision_of(demand: Demand, nodes: Mapping[str, Node], *, use_gpus: bool) -> Decision:
    """All roles of `demand` on their `nodes`, by role, after a move: without GPUs, which it does not know."""
    ids = list(dict.fromkeys(node.id for node in nodes.values()))
    by_id = {node.id: node for node in nodes.values()}
    at = {role: Slot(ids.index(node.id), ()) for role, node in nodes.items()}
    sizes = [sum(slot.bundle == i for slot in at.values()) for i in range(len(ids))]

    def named(name: str, count: int) -> tuple[Slot, ...]:
        return tuple(at[f"{name} {i}"] for i in range(count))

    return Decision(
        bundles=tuple(Bundle(by_id[id_], 0, size) for id_, size in zip(ids, sizes, strict=True)),
        policy=named("policy rank", demand.num_policy_ranks),
        engines=named("engine", len(demand.engines)),
        reward_models={
            name: named(f"reward model {name}", len(copies)) for name, copies in demand.reward_models.items()
        },
        use_gpus=use_gpus,
    )


def what_was_lost(addresses: Collection[str], roles: Sequence[str]) -> str:
    """The beginning of a sentence: the nodes, and the roles on them."""
    names = ", ".join(roles[:MOST_NAMES])
    if len(roles) > MOST_NAMES:
        names += f" and {len(roles) - MOST_NAMES} more roles"
    nodes = ", ".join(sorted(addresses))
    if len(addresses) == 1:
        return f"node {nodes} was lost, with {names} on it"
    return f"nodes {nodes} were lost, with {names} on them"


def how_to_go_on(addresses: Collection[str]) -> str:
    """The end of that sentence, for a run that ends."""
    nodes = ", ".join(sorted(addresses))
    return f"add a node, or start Ray on {nodes} again, and launch the run again with --resume"


def _no_room(there: Collection[str], roles: Sequence[str], others: Sequence[Node], use_gpus: bool) -> str:
    unit, field = ("GPUs", "num_gpus") if use_gpus else ("cores", "num_cores")
    free = ", ".join(f"{getattr(node, field)} {unit} of {node.address}" for node in others)
    return (
        f"{what_was_lost(there, roles)}, and no other node has room for that (free: {free or 'none'}); "
        f"{how_to_go_on(there)}"
    )
