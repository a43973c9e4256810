"""Processors for a run's roles, reserved as one of Ray's placement groups until the run has ended.

Ray reserves whole GPUs of a node and says which; who uses them is then decided here. So engines can share
the policy's, and a role with several GPUs is one actor. When the driver dies, Ray gives all of it back.
"""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import ray
from ray.exceptions import GetTimeoutError
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from rlstack.collectives import SECRET, new_secret
from rlstack.config.schema import Cluster
from rlstack.errors import ConfigError
from rlstack.orchestration.home import Home
from rlstack.orchestration.nodes import all_nodes, free_nodes
from rlstack.orchestration.placement import Bundle, Decision, Demand, Node, Slot, place

POLL_S = 1.0
NODE_LABEL = "ray.io/node-id"


class Reservation:
    """The places of a decision, until close()."""

    def __init__(
        self,
        decision: Decision,
        settings: Cluster,
        *,
        deadline: float,
        within: str,
        secret: str | None = None,
    ) -> None:
        """deadline: of time.monotonic(); within: the limit that it comes from, for messages.

        secret: that of the run's other roles, None for a new one.

        Raises RuntimeError if a node does not give what it had.
        """
        self.decision = decision
        self.secret = secret or new_secret()
        self._environment = {**settings.env, SECRET: self.secret}
        self._is_own_ray = settings.address is None
        self._group: Any = placement_group(
            [_resources(bundle, settings.ranks_per_core) for bundle in decision.bundles],
            strategy="PACK",
            name=f"rlstack {secrets.token_hex(4)}",  # Ray refuses a name that another one has
            bundle_label_selector=[{NODE_LABEL: bundle.node.id} for bundle in decision.bundles],
        )
        nodes = ", ".join(_wanted(bundle) for bundle in decision.bundles)
        try:
            if not self._group.wait(_left_s(deadline)):
                raise _late(f"Ray to reserve {nodes}", within)
            self._gpus = self._ask_for_gpus(deadline)
        except GetTimeoutError:
            self.close()
            raise _late(f"a process to start on each of {nodes}", within) from None
        except BaseException:
            self.close()
            raise

    def home(self, slot: Slot) -> Home:
        gpus, node = self._gpus[slot.bundle], self.decision.bundles[slot.bundle].node
        return Home(
            scheduling=self._scheduling(slot.bundle),
            gpus=tuple(gpus[i] for i in slot.gpus),
            environment=self._environment,
            node="" if self._is_own_ray else node.id,
            address="" if self._is_own_ray else node.address,
        )

    def close(self) -> None:
        """Give everything back; ends what still runs there."""
        remove_placement_group(self._group)

    def _scheduling(self, bundle: int) -> PlacementGroupSchedulingStrategy:
        return PlacementGroupSchedulingStrategy(self._group, placement_group_bundle_index=bundle)

    def _ask_for_gpus(self, deadline: float) -> list[list[str]]:
        """Of each bundle, the GPUs that Ray has reserved, by a task that takes them all."""
        remote: Any = ray.remote
        ask = remote(num_cpus=0)(_own_gpus)
        calls = [
            ask.options(num_gpus=bundle.num_gpus, scheduling_strategy=self._scheduling(i)).remote()
            for i, bundle in enumerate(self.decision.bundles)
            if bundle.num_gpus
        ]
        answers = iter(ray.get(calls, timeout=_left_s(deadline)))
        return [next(answers) if bundle.num_gpus else [] for bundle in self.decision.bundles]


def reserve(demand: Demand, settings: Cluster) -> Reservation:
    """Places for all of `demand` in the Ray cluster that this process has joined.

    Waits up to `settings.placement_timeout_s` for processors that others hold. Raises ConfigError at once if
    the cluster is too small, RuntimeError if what is wanted does not become free in time.
    """
    deadline = time.monotonic() + settings.placement_timeout_s
    within = f"{settings.placement_timeout_s:g} s (cluster.placement_timeout_s)"
    nodes = all_nodes()
    use_gpus = any(node.num_gpus for node in nodes)
    decide = partial(place, demand, use_gpus=use_gpus, ranks_per_core=settings.ranks_per_core)
    decide(nodes)
    while True:
        free = free_nodes(nodes)
        if (decision := _if_it_fits(decide, free)) is not None:
            return Reservation(decision, settings, deadline=deadline, within=within)
        if time.monotonic() >= deadline:
            raise _late(f"what others hold: {_shares(free, nodes, use_gpus)} are free", within)
        time.sleep(min(POLL_S, _left_s(deadline)))


def _if_it_fits(decide: Callable[[Sequence[Node]], Decision], nodes: Sequence[Node]) -> Decision | None:
    try:
        return decide(nodes)
    except ConfigError:
        return None


def _shares(free: Sequence[Node], nodes: Sequence[Node], use_gpus: bool) -> str:
    """What is free of each node."""
    unit, field = ("GPUs", "num_gpus") if use_gpus else ("cores", "num_cores")
    return ", ".join(
        f"{getattr(left, field)} of {getattr(node, field)} {unit} on {node.address}"
        for left, node in zip(free, nodes, strict=True)
    )


def _own_gpus() -> list[str]:
    return [str(gpu) for gpu in ray.get_gpu_ids()]


def _resources(bundle: Bundle, ranks_per_core: int) -> dict[str, float]:
    """Where there are no GPUs, a process takes its share of a core, rounded to what Ray can count."""
    if bundle.num_gpus:
        return {"GPU": bundle.num_gpus}
    return {"CPU": max(math.floor(bundle.num_processes / ranks_per_core * 1e4) / 1e4, 1e-4)}


def _wanted(bundle: Bundle) -> str:
    what = f"{bundle.num_gpus} GPUs" if bundle.num_gpus else f"room for {bundle.num_processes} processes"
    return f"{what} of {bundle.node.address}"


def _left_s(deadline: float) -> float:
    return max(0.1, deadline - time.monotonic())


def _late(what: str, within: str) -> RuntimeError:
    return RuntimeError(f"waited {within} for {what}")
