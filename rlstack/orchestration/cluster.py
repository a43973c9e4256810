"""The processes of a run: a Ray cluster, the policy's ranks and the engines on it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType

import psutil
import ray

from rlstack.config.reward_names import used_models
from rlstack.config.schema import RunConfig
from rlstack.errors import ConfigError
from rlstack.orchestration.cluster_check import check_cluster
from rlstack.orchestration.engine_group import EngineGroup
from rlstack.orchestration.home import Home
from rlstack.orchestration.loopback import LOOPBACK
from rlstack.orchestration.nodes import all_nodes
from rlstack.orchestration.placement import Decision, Demand
from rlstack.orchestration.policy_group import PolicyGroup
from rlstack.orchestration.processes import end_everywhere
from rlstack.orchestration.ray_session import (
    end_ray,
    end_roles,
    keep_logs,
    start_ray,
    text_to,
    with_descendants,
)
from rlstack.orchestration.recovery import EngineRecovery
from rlstack.orchestration.reservation import reserve
from rlstack.orchestration.restarts import Note, Restarts, Say
from rlstack.orchestration.reward_group import RewardModelGroup
from rlstack.orchestration.role_homes import RoleHomes
from rlstack.orchestration.roles import BackToCheckpoint, Role, kill_roles
from rlstack.orchestration.shared_gpus import on_shared_gpus
from rlstack.orchestration.shared_memory import removing_shared_memory
from rlstack.telemetry.standard_error import libraries_to
from rlstack.telemetry.timeline import span
from rlstack.telemetry.waiting import Reason


class Cluster:
    """A context: everything that it started has ended when it is left, whatever the reason."""

    def __init__(
        self,
        config: RunConfig,
        logs: Path,
        *,
        note: Note = lambda row: None,
        say: Say = lambda text: None,
        step: Callable[[], int] = lambda: 0,
        policy: bool = True,
        engines: bool = True,
        own_loss: object = None,
        max_prompt_tokens: int | None = None,
    ) -> None:
        """`note` gets a row for each role that is replaced, after `step`, `say` a line when that begins or
        something is waited for; see Restarts.

        policy, engines: whether they will be started; the reward models that a task names will be.
        own_loss: what objective.loss stands for.
        max_prompt_tokens: the longest prompt that engines will get; None: as the model's context takes.
        """
        self._config = config
        self._max_prompt_tokens = max_prompt_tokens
        self._own_loss = own_loss
        self._demand = Demand.of(config, policy=policy, engines=engines)
        self._role_homes: RoleHomes | None = None
        self._checked: set[str] = set()  # Ray's ids of nodes
        self._logs = logs
        self._say = say
        self.restarts = Restarts(
            config.recovery.max_restarts,
            note,
            window_s=config.recovery.window_s,
            step=step,
            say=say,
            settle=lambda roles: self._homes.settle(roles),
        )
        self._policy: PolicyGroup | None = None
        self._engines: EngineGroup | None = None
        self._reward_models: dict[str, RewardModelGroup] = {}
        self._rays_text = ExitStack()
        self._ray: list[psutil.Process] = []  # what this has started, not what belongs to another cluster

    def __enter__(self) -> Cluster:
        settings = self._config.cluster
        self._rays_text.enter_context(text_to(self._logs / "ray.log"))
        self._rays_text.enter_context(libraries_to(self._logs / "driver.log"))
        try:
            with span("starting Ray", reason=Reason.start_up):
                self._ray = start_ray(settings)
                reservation = reserve(self._demand, settings)
                self._role_homes = RoleHomes(
                    reservation, self._demand, settings, check=self._check, say=self._say
                )
                self._check(reservation.decision)
                if self._demand.colocated and reservation.decision.use_gpus:
                    self._config = on_shared_gpus(self._config)
        except BaseException:
            self._end(in_order=False)
            raise
        return self

    def _check(self, decision: Decision) -> None:
        """Check a cluster's nodes before roles start where `decision` places them, if one of them is new.

        Raises as cluster_check.check_cluster.
        """
        ids = {bundle.node.id for bundle in decision.bundles}
        if self._config.cluster.address is None or ids <= self._checked:
            return
        known = {node.id: node for node in all_nodes()}  # with all that they have, free or not
        bundles = [each._replace(node=known.get(each.node.id, each.node)) for each in decision.bundles]
        decision = replace(decision, bundles=tuple(bundles))
        check_cluster(self._config, self._demand, decision, run=self._logs, own_loss=self._own_loss)
        self._checked |= ids

    def launch(self) -> tuple[PolicyGroup, EngineGroup]:
        """Start policy and engines, and wait until all roles are ready.

        They start side by side, unless the engines have to find out how much memory the policy leaves them.
        """
        with self._homes.naming_lost_nodes():
            if self._demand.colocated:
                policy = self.start_policy()
                policy.release_memory()
                engines = self._start_engines()
            else:
                engines = self._start_engines()
                policy = self.start_policy()
            engines.wait_until_ready()
            self.wait_for_reward_models()
        return policy, engines

    def restart_policy(self, lost: BackToCheckpoint) -> PolicyGroup:
        """End all ranks of the policy and build it anew, from `policy.model`; the other roles stay.

        The engines drop their requests, and an engine that was lost is replaced, at the same time as the
        policy unless they share GPUs; what the engines hold has to be brought to them.

        Raises RoleError if that was one restart too many, or if a rank cannot be started; NodeLost if a node
        was lost and no other one can take what was there.
        """
        assert self._policy is not None and self._engines is not None, "launch comes first"
        seat = self._engines.seat_of(lost.role)
        replaced = [*self._policy.roles, *([] if seat is None else [lost.role])]
        with self.restarts.replacing(lost, replaced):
            kill_roles(replaced)
            self._engines.abandon()
            if seat is not None:
                seat.replace()
            if seat is not None and self._demand.colocated:
                self._engines.load(seat.role)
            policy = self.start_policy()
            if seat is not None and not self._demand.colocated:
                self._engines.load(seat.role)
            return policy

    def start_policy(self) -> PolicyGroup:
        """Start the policy alone, and wait until it is ready."""
        self._policy = PolicyGroup(
            self._config, logs=self._logs, home_of=self._homes.of, own_loss=self._own_loss
        )
        self._policy.start(LOOPBACK if self._config.cluster.address is None else None)
        return self._policy

    def launch_engines(self) -> EngineGroup:
        """Start the engines alone, where nothing is trained, and wait until they are ready."""
        with self._homes.naming_lost_nodes():
            engines = self._start_engines()
            engines.wait_until_ready()
            self.wait_for_reward_models()
        engines.mend_with(EngineRecovery(engines, self.restarts, None).mend)
        return engines

    def start_reward_models(self) -> dict[str, RewardModelGroup]:
        """Let the reward models that a task names load, and return at once; by name."""
        used = used_models(self._config)
        for i, model in enumerate(self._config.reward.models):
            if model in used:
                self._reward_models[model.name] = RewardModelGroup(
                    model,
                    key=f"reward.models[{i}]",
                    logs=self._logs,
                    home_of=self._homes.of,
                    restarts=self.restarts,
                )
        return self._reward_models

    def wait_for_reward_models(self) -> None:
        """Return when those that were started are ready."""
        for model in self._reward_models.values():
            model.wait_until_ready()

    def _start_engines(self) -> EngineGroup:
        self._engines = EngineGroup(
            self._config,
            logs=self._logs,
            home_of=self._engine_home,
            max_prompt_tokens=self._max_prompt_tokens,
        )
        return self._engines

    def _engine_home(self, name: str) -> Home:
        home = self._homes.of(name)
        # Colocated, what the GPUs use would count twice.
        return home._replace(samples_gpus=False) if self._demand.colocated else home

    @property
    def _homes(self) -> RoleHomes:
        assert self._role_homes is not None, "the context comes first"
        return self._role_homes

    @property
    def host(self) -> str:
        """The address on which the run's own services listen."""
        return LOOPBACK if self._config.cluster.address is None else ray.util.get_node_ip_address()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with span("shutting down", reason=Reason.shut_down):
            failed = kind is not None and issubclass(kind, Exception) and not issubclass(kind, ConfigError)
            if self._ray and failed:
                keep_logs(self._logs / "ray")
            self._end(in_order=kind is None)

    def _end(self, *, in_order: bool) -> None:
        started = with_descendants(self._ray)
        noted = [processes for role in self._roles() if (processes := role.processes()) is not None]
        with removing_shared_memory([process.pid for process in started]):
            if self._engines is not None:
                self._engines.stop_reading()
            if self._engines is not None and in_order:
                self._engines.close(self._config.cluster.shutdown_timeout_s)
            if not in_order:
                end_roles(self._ray)
            if self._role_homes is not None:
                self._role_homes.close()
            if self._ray:
                started += with_descendants(self._ray)
                end_ray(started, [member for processes in noted for member in processes.members])
            else:
                end_everywhere(noted)
                end_ray([])
        self._rays_text.close()

    def _roles(self) -> list[Role[object]]:
        groups = (self._policy, self._engines, *self._reward_models.values())
        return [role for group in groups if group is not None for role in group.roles]
