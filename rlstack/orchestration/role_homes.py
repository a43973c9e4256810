"""The homes of a run's roles, which change where a node is lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from rlstack.config.schema import Cluster
from rlstack.errors import ConfigError
from rlstack.orchestration.home import Home
from rlstack.orchestration.nodes import all_nodes, answers, free_nodes, lost_nodes
from rlstack.orchestration.placement import Decision, Demand
from rlstack.orchestration.relocation import (
    Move,
    decide,
    decision_of,
    how_to_go_on,
    nodes_of,
    part_of,
    slots,
    what_was_lost,
)
from rlstack.orchestration.reservation import Reservation
from rlstack.orchestration.roles import NodeLost, Role, RoleLost

Say = Callable[[str], object]

SILENT_S = 60.0  # after which a node counts as lost that answers as little as Ray gives it up
ROOM_S = 20.0  # for a node to come back, or for what has ended to become free
RESERVE_S = 30.0
CONNECT_S = 2.0
POLL_S = 1.0


class RoleHomes:
    """By the roles' names. From any thread."""

    def __init__(
        self,
        reservation: Reservation,
        demand: Demand,
        settings: Cluster,
        *,
        check: Callable[[Decision], None],
        say: Say,
    ) -> None:
        """reservation: of all that `demand` is.

        check: gets where all roles will be before some move; raises ConfigError or RuntimeError.
        say: gets a line where something is waited for.
        """
        self._demand, self._settings = demand, settings
        self._check, self._say = check, say
        self._use_gpus = reservation.decision.use_gpus
        self._secret = reservation.secret
        self._reservations = [reservation]
        self._lock = threading.Lock()
        self._lost = dict[str, str]()  # nodes that were found to be, addresses by Ray's ids
        where = dict(zip(part_of(demand).roles, slots(reservation.decision), strict=True))
        self._homes = {role: reservation.home(slot) for role, slot in where.items()}
        self._nodes = nodes_of(Move(where, reservation.decision))

    def of(self, role: str) -> Home:
        """That at which a role of this name is to be started now."""
        return self._homes[role]

    def settle(self, roles: Sequence[Role[object]]) -> list[str]:
        """Have a home on a living node for each of `roles`, one of which has failed, before it is replaced.

        A node that does not answer is waited for until it does, or Ray gives it up. All roles of a node that
        is lost get other homes, also those that are not replaced yet.

        Returns the addresses of the nodes to which `roles` have moved, without those that stay.

        Raises NodeLost if a node was lost and no other one can take what was there.
        """
        with self._lock:
            lost = self._find_lost({role.home.node: role.home.address for role in roles if role.home.node})
            if lost:
                homes = {home.node: home.address for home in self._homes.values()}
                lost |= {node: homes[node] for node in lost_nodes(homes)}
                self._lost |= lost
            if lost and (move := self._find_room(lost)) is not None:
                self._move(move)
            return sorted({self._homes[role.name].address for role in roles if role.home.node in lost})

    @contextmanager
    def naming_lost_nodes(self) -> Iterator[None]:
        """Raise NodeLost in place of RoleLost if the role's node is lost: at the start no role moves."""
        try:
            yield
        except RoleLost as failed:
            home = failed.role.home
            with self._lock:
                lost = self._find_lost({home.node: home.address} if home.node else {})
            if not lost:
                raise
            there = [name for name, each in self._homes.items() if each.node == home.node]
            raise NodeLost(
                f"{what_was_lost([home.address], there)}: {failed.reason}; {how_to_go_on([home.address])}"
            ) from failed

    def close(self) -> None:
        """Give everything back; ends what still runs there."""
        for reservation in self._reservations:
            reservation.close()

    def _find_lost(self, nodes: Mapping[str, str]) -> dict[str, str]:
        """Those of `nodes`, addresses by Ray's ids, that are lost."""
        deadline, is_said = time.monotonic() + SILENT_S, False
        lost = {node: nodes[node] for node in nodes if node in self._lost}
        silent = {node: nodes[node] for node in nodes if node not in lost}
        while silent:
            gone = lost_nodes(silent)
            lost |= {node: nodes[node] for node in gone}
            there = {node for node in silent if node not in gone and answers(node, timeout_s=CONNECT_S)}
            silent = {node: nodes[node] for node in silent if node not in gone | there}
            if silent and time.monotonic() >= deadline:
                return lost | silent
            if silent and not is_said:
                names, is_said = ", ".join(sorted(silent.values())), True
                self._say(
                    f"node {names} does not answer; waiting {SILENT_S:g} s for it, or for Ray to give it up"
                )
            if silent:
                time.sleep(POLL_S)
        return lost

    def _find_room(self, lost: Mapping[str, str]) -> Move | None:
        """Other homes for what was on `lost` nodes; None if nothing is there any more."""
        deadline, is_said = time.monotonic() + ROOM_S, False
        while True:
            try:
                return decide(
                    self._demand,
                    self._homes,
                    lost,
                    free_nodes(all_nodes()),
                    use_gpus=self._use_gpus,
                    ranks_per_core=self._settings.ranks_per_core,
                )
            except NodeLost:
                if time.monotonic() >= deadline:
                    raise
            if not is_said:
                is_said = True
                nodes = ", ".join(sorted(lost.values()))
                self._say(f"no node has room for what was on {nodes}; waiting {ROOM_S:g} s for one")
            time.sleep(POLL_S)

    def _move(self, move: Move) -> None:
        there = {self._homes[role].address for role in move.slots}
        nodes = self._nodes | nodes_of(move)
        try:
            self._check(decision_of(self._demand, nodes, use_gpus=self._use_gpus))
            reservation = Reservation(
                move.decision,
                self._settings,
                deadline=time.monotonic() + RESERVE_S,
                within=f"{RESERVE_S:g} s",
                secret=self._secret,
            )
        except (ConfigError, RuntimeError) as error:
            why = "; ".join(str(error).splitlines())
            names = ", ".join(bundle.node.address for bundle in move.decision.bundles)
            raise NodeLost(
                f"{what_was_lost(there, [*move.slots])}, and {names} cannot take its place: {why}; "
                f"{how_to_go_on(there)}"
            ) from error
        self._reservations.append(reservation)
        self._nodes = nodes
        self._homes |= {role: reservation.home(slot) for role, slot in move.slots.items()}
