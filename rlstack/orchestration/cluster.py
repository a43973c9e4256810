"""The processes of a run: a Ray cluster, the policy's ranks and the engines on it."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import psutil
import ray

from rlstack.config.machine import Machine
from rlstack.config.reward_names import used_models
from rlstack.config.schema import RunConfig
from rlstack.orchestration.engine_group import EngineGroup
from rlstack.orchestration.home import Home
from rlstack.orchestration.loopback import LOOPBACK, stay_on_loopback
from rlstack.orchestration.placement import Decision, Demand, Slot
from rlstack.orchestration.policy_group import PolicyGroup
from rlstack.orchestration.processes import end_everywhere, kill_all
from rlstack.orchestration.recovery import EngineRecovery
from rlstack.orchestration.reservation import Reservation, reserve
from rlstack.orchestration.restarts import Note, Restarts
from rlstack.orchestration.reward_group import RewardModelGroup
from rlstack.orchestration.role_errors import BackToCheckpoint
from rlstack.orchestration.roles import Role
from rlstack.orchestration.shared_gpus import on_shared_gpus
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
        policy: bool = True,
        engines: bool = True,
    ) -> None:
        """`note` gets a row for each role that is replaced; see Restarts.

        policy, engines: whether they will be started; the reward models that a task names will be.
        """
        self._config = config
        self._demand = Demand.of(config, policy=policy, engines=engines)
        self._reservation: Reservation | None = None
        self._logs = logs
        self.restarts = Restarts(config.recovery.max_restarts, note)
        self._policy: PolicyGroup | None = None
        self._engines: EngineGroup | None = None
        self._reward_models: dict[str, RewardModelGroup] = {}
        self._ray: list[psutil.Process] = []  # what this has started, not what belongs to another cluster

    def __enter__(self) -> Cluster:
        # Read by the Ray processes that start now; a cluster that runs already keeps its own settings.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        address = self._config.cluster.address
        try:
            with span("starting Ray", reason=Reason.start_up):
                if address is not None:
                    ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
                else:
                    self._start_ray()
                self._reservation = reserve(self._demand, self._config.cluster)
                if self._demand.colocated and self._places.use_gpus:
                    self._config = on_shared_gpus(self._config)
        except BaseException:
            self._end(in_order=False)
            raise
        return self

    def _start_ray(self) -> None:
        before = psutil.Process().children()
        stay_on_loopback()
        ray.init(
            num_cpus=Machine.detect().num_cores,  # which the settings have been held against
            object_store_memory=self._config.cluster.object_store_mib << 20,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
        self._ray = [child for child in psutil.Process().children() if child not in before and _is_ray(child)]

    def launch(self) -> tuple[PolicyGroup, EngineGroup]:
        """Start policy and engines, and wait until all roles are ready.

        They start side by side, unless the engines have to find out how much memory the policy leaves them.
        """
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

        The engines drop what they were asked for, and if it is one of them that was lost, it is replaced;
        what they hold has to be brought to them.

        Raises RoleError if that was one restart too many, or if a rank cannot be started.
        """
        assert self._policy is not None and self._engines is not None, "launch comes first"
        with self.restarts.replacing(lost):
            self._policy.kill()
            self._engines.abandon()
            if (seat := self._engines.seat_of(lost.role)) is not None:
                seat.replace()
                self._engines.load(seat.role)
            return self.start_policy()

    def start_policy(self) -> PolicyGroup:
        """Start the policy alone, and wait until it is ready."""
        homes = self._homes(self._places.policy)
        self._policy = PolicyGroup(self._config, logs=self._logs, homes=homes)
        self._policy.start(LOOPBACK if self._config.cluster.address is None else None)
        return self._policy

    def launch_engines(self) -> EngineGroup:
        """Start the engines alone, where nothing is trained, and wait until they are ready."""
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
                    homes=self._homes(self._places.reward_models[model.name]),
                    restarts=self.restarts,
                )
        return self._reward_models

    def wait_for_reward_models(self) -> None:
        """Return when those that were started are ready."""
        for model in self._reward_models.values():
            model.wait_until_ready()

    def _start_engines(self) -> EngineGroup:
        homes = self._homes(self._places.engines)
        self._engines = EngineGroup(self._config, logs=self._logs, homes=homes)
        return self._engines

    @property
    def _places(self) -> Decision:
        assert self._reservation is not None, "the context comes first"
        return self._reservation.decision

    def _homes(self, slots: Sequence[Slot]) -> list[Home]:
        assert self._reservation is not None, "the context comes first"
        return [self._reservation.home(slot) for slot in slots]

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
            self._end(in_order=kind is None)

    def _end(self, *, in_order: bool) -> None:
        started = [process for root in self._ray for process in _with_descendants(root)]
        noted = [role.processes() for role in self._roles()]
        if self._engines is not None:
            self._engines.stop_reading()
        if self._engines is not None and in_order:
            self._engines.close(self._config.cluster.shutdown_timeout_s)
        if not self._ray:
            end_everywhere([processes for processes in noted if processes is not None])
        if self._reservation is not None:
            self._reservation.close()
        ray.shutdown()
        _end(started, timeout_s=2.0)
        if self._ray:
            kill_all([member for processes in noted if processes for member in processes.members])

    def _roles(self) -> list[Role]:
        groups = (self._policy, self._engines, *self._reward_models.values())
        return [role for group in groups if group is not None for role in group.roles]


def _is_ray(process: psutil.Process) -> bool:
    """Whether it is Ray's; another thread of this process may start some of its own at the same time."""
    try:
        return any("/ray/" in argument for argument in process.cmdline())
    except psutil.Error:
        return False


def _with_descendants(process: psutil.Process) -> list[psutil.Process]:
    """A process of Ray's, the roles below it, and what the roles have started."""
    try:
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _end(processes: list[psutil.Process], *, timeout_s: float) -> None:
    """A role that was killed cannot end its own children (vLLM's workers); nobody else would."""
    _, alive = psutil.wait_procs(processes, timeout=timeout_s)
    for process in alive:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, timeout=timeout_s)
