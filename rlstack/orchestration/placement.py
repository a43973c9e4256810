"""Which rank, engine or reward model sits on which node and GPU: a pure decision.

Ranks that share a layer talk after every product of matrices, so a tensor-parallel group of the policy, an
engine and a copy of a reward model stay within a node, where NVLink is. The policy's groups follow each other
from node to node in the order of the ranks, so that pipelines, which talk least, are what spans the nodes.
Without GPUs cores take their place: one process on each, and more only where they do not suffice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rlstack.config.parallel import num_policy_ranks
from rlstack.config.reward_names import used_models
from rlstack.config.schema import Placement, RunConfig
from rlstack.errors import ConfigError
from rlstack.orchestration.placement_refusal import refusal


class Node(NamedTuple):
    id: str  # Ray's
    address: str
    num_gpus: int
    num_cores: int


class Slot(NamedTuple):
    """The place of a rank, an engine or a copy of a reward model."""

    bundle: int
    gpus: tuple[int, ...]  # counted within the bundle; empty without GPUs


class Bundle(NamedTuple):
    """What is wanted of one node."""

    node: Node
    num_gpus: int
    num_processes: int


class Group(NamedTuple):
    """So many processes, a GPU for each where there are any, that have to be on one node."""

    setting: str  # that says how many
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """All that a run wants to have placed."""

    policy: tuple[Group, ...]  # tensor-parallel groups in the order of the ranks
    engines: tuple[Group, ...]
    reward_models: Mapping[str, tuple[Group, ...]]  # copies, by name
    colocated: bool = False  # the engines take no GPUs but the policy's

    @classmethod
    def of(cls, config: RunConfig, *, policy: bool = True, engines: bool = True) -> Demand:
        """What `config`, which is validated, asks for; of policy and engines only what will be started."""
        tensor_parallel, rollout = config.policy.tensor_parallel, config.rollout
        num_groups = num_policy_ranks(config.policy) // tensor_parallel if policy else 0
        models = config.reward.models
        return cls(
            policy=(Group("policy.tensor_parallel", tensor_parallel),) * num_groups,
            engines=(Group("rollout.tensor_parallel", rollout.tensor_parallel),)
            * (rollout.engines if engines else 0),
            reward_models={
                model.name: (
                    Group(f"reward.models[{models.index(model)}].tensor_parallel", model.tensor_parallel),
                )
                * model.num_actors
                for model in used_models(config)
            },
            colocated=config.cluster.placement is Placement.colocated and policy and engines,
        )

    @property
    def num_policy_ranks(self) -> int:
        return sum(group.size for group in self.policy)

    @property
    def num_engine_ranks(self) -> int:
        return sum(group.size for group in self.engines)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Where everything goes."""

    bundles: tuple[Bundle, ...]  # one for each node that is used
    policy: tuple[Slot, ...]  # by rank
    engines: tuple[Slot, ...]
    reward_models: Mapping[str, tuple[Slot, ...]]  # by name and copy
    use_gpus: bool


def place(demand: Demand, nodes: Sequence[Node], *, use_gpus: bool, ranks_per_core: int) -> Decision:
    """The place of everything in `demand` on `nodes`; with `use_gpus` only their GPUs count.

    Raises ConfigError if it does not fit: what is asked for, what there is, which settings to change.
    """
    if use_gpus:
        return _on_gpus(demand, [node for node in nodes if node.num_gpus])
    groups = [*demand.policy, *demand.engines, *_copies(demand)]
    for processes_per_core in range(1, ranks_per_core + 1):
        capacities = [node.num_cores * processes_per_core for node in nodes]
        if (found := _fit(groups, capacities)) is not None:
            return _decision(demand, nodes, found, use_gpus=False)
    raise ConfigError(refusal(demand, [node.num_cores * ranks_per_core for node in nodes], unit="process"))


def roles_by_bundle(decision: Decision) -> list[list[str]]:
    """The names of the roles in each bundle: policy-0, engine-0, copies of reward models as NAME-0."""
    roles: list[list[str]] = [[] for _ in decision.bundles]
    groups = {"policy": decision.policy, "engine": decision.engines, **decision.reward_models}
    for name, slots in groups.items():
        for i, slot in enumerate(slots):
            roles[slot.bundle].append(f"{name}-{i}")
    return roles


def _on_gpus(demand: Demand, nodes: Sequence[Node]) -> Decision:
    capacities = [node.num_gpus for node in nodes]
    if demand.colocated:
        found = _fit_shared(demand, capacities)
    else:
        found = _fit([*demand.policy, *demand.engines, *_copies(demand)], capacities)
    if found is None:
        raise ConfigError(refusal(demand, capacities, unit="GPU"))
    return _decision(demand, nodes, found, use_gpus=True)


def _copies(demand: Demand) -> list[Group]:
    return [copy for copies in demand.reward_models.values() for copy in copies]


class _Room(NamedTuple):
    node: int
    units: range  # GPUs, or places for processes


def _fit(groups: Sequence[Group], capacities: Sequence[int]) -> list[_Room] | None:
    """Rooms for the groups, in their order: the largest first, each on the largest node that has room."""
    order = sorted(range(len(capacities)), key=lambda node: -capacities[node])
    used, rooms = [0] * len(capacities), dict[int, _Room]()
    for i in sorted(range(len(groups)), key=lambda i: -groups[i].size):
        size = groups[i].size
        node = next((node for node in order if used[node] + size <= capacities[node]), None)
        if node is None:
            return None
        rooms[i] = _Room(node, range(used[node], used[node] + size))
        used[node] += size
    return [rooms[i] for i in range(len(groups))]


def _fit_shared(demand: Demand, capacities: Sequence[int]) -> list[_Room] | None:
    """As _fit, with the engines in the policy's room, which is on one node: weights go through its memory."""
    policy = Group("the policy's ranks", demand.num_policy_ranks)
    rooms = _fit([policy, *_copies(demand)], capacities)
    if rooms is None or demand.num_engine_ranks > policy.size:
        return None
    return [*_within(rooms[0], demand.policy), *_within(rooms[0], demand.engines), *rooms[1:]]


def _within(room: _Room, groups: Sequence[Group]) -> list[_Room]:
    """The groups one after the other in a room that others may be in as well."""
    ends = [sum(group.size for group in groups[: i + 1]) for i in range(len(groups))]
    return [
        _Room(room.node, room.units[end - group.size : end]) for group, end in zip(groups, ends, strict=True)
    ]


def _decision(demand: Demand, nodes: Sequence[Node], rooms: list[_Room], *, use_gpus: bool) -> Decision:
    used = sorted({room.node for room in rooms})
    counts = {node: max(room.units.stop for room in rooms if room.node == node) for node in used}

    def slot(room: _Room) -> Slot:
        return Slot(used.index(room.node), tuple(room.units) if use_gpus else ())

    num_policy, num_engines = len(demand.policy), len(demand.engines)
    copies = iter(rooms[num_policy + num_engines :])
    return Decision(
        bundles=tuple(Bundle(nodes[i], counts[i] if use_gpus else 0, counts[i]) for i in used),
        policy=tuple(
            slot(_Room(room.node, range(unit, unit + 1)))
            for room in rooms[:num_policy]
            for unit in room.units
        ),
        engines=tuple(map(slot, rooms[num_policy : num_policy + num_engines])),
        reward_models={
            name: tuple(slot(next(copies)) for _ in of_model)
            for name, of_model in demand.reward_models.items()
        },
        use_gpus=use_gpus,
    )
