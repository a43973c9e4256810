"""The processes of a run: a Ray cluster, the policy's ranks and the engines on it."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import psutil
import ray

from rlstack.config.reward_names import used_models
from rlstack.config.schema import RunConfig
from rlstack.orchestration.engine_group import EngineGroup
from rlstack.orchestration.loopback import LOOPBACK, stay_on_loopback
from rlstack.orchestration.policy_group import PolicyGroup
from rlstack.orchestration.processes import kill_all
from rlstack.orchestration.recovery import EngineRecovery
from rlstack.orchestration.restarts import Note, Restarts
from rlstack.orchestration.reward_group import RewardModelGroup
from rlstack.orchestration.role_errors import BackToCheckpoint
from rlstack.orchestration.roles import Role
from rlstack.telemetry.timeline import span
from rlstack.telemetry.waiting import Reason


class Cluster:
    """A context: everything that it started has ended when it is left, whatever the reason."""

    def __init__(self, config: RunConfig, logs: Path, *, note: Note = lambda row: None) -> None:
        """`note` gets a row for each role that is replaced; see Restarts."""
        self._config = config
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
        with span("starting Ray", reason=Reason.start_up):
            if address is not None:
                ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
            else:
                self._start_ray()
        return self

    def _start_ray(self) -> None:
        before = psutil.Process().children()
        stay_on_loopback()
        ray.init(
            object_store_memory=self._config.cluster.object_store_mib << 20,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
        self._ray = [child for child in psutil.Process().children() if child not in before and _is_ray(child)]

    def launch(self) -> tuple[PolicyGroup, EngineGroup]:
        """Start policy and engines, side by side, and wait until all roles are ready."""
        engines = self._start_engines()
        policy = self._start_policy()
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
            return self._start_policy()

    def _start_policy(self) -> PolicyGroup:
        self._policy = PolicyGroup(self._config, logs=self._logs, use_gpus=_has_gpus())
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
        used, has_gpus = used_models(self._config), _has_gpus()
        for i, model in enumerate(self._config.reward.models):
            if model in used:
                self._reward_models[model.name] = RewardModelGroup(
                    model,
                    key=f"reward.models[{i}]",
                    logs=self._logs,
                    num_gpus_per_actor=model.tensor_parallel if has_gpus else 0,
                    restarts=self.restarts,
                )
        return self._reward_models

    def wait_for_reward_models(self) -> None:
        """Return when those that were started are ready."""
        for model in self._reward_models.values():
            model.wait_until_ready()

    def _start_engines(self) -> EngineGroup:
        num_gpus = self._config.rollout.tensor_parallel if _has_gpus() else 0
        self._engines = EngineGroup(self._config, logs=self._logs, num_gpus_per_engine=num_gpus)
        return self._engines

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
        ray.shutdown()
        _end(started, timeout_s=2.0)
        if self._ray:
            kill_all([member for processes in noted if processes for member in processes.members])

    def _roles(self) -> list[Role]:
        groups = (self._policy, self._engines, *self._reward_models.values())
        return [role for group in groups if group is not None for role in group.roles]


def _has_gpus() -> bool:
    return ray.cluster_resources().get("GPU", 0) > 0


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
