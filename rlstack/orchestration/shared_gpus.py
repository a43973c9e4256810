"""Policy and engines on the same GPUs: they work in shifts, for the memory.

The policy's weights, gradients and optimiser stay on the GPUs all the time; what it needs for a step, torch's
allocator gives back before an engine wakes. An engine keeps its weights in the host's memory while it sleeps:
inside an interval the same ones are needed again, and a sync finds every parameter in its place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from enum import Enum, auto

from rlstack.config.schema import RunConfig, TransferChannel, TransferMethod
from rlstack.errors import ConfigError
from rlstack.orchestration.engine_group import EngineGroup
from rlstack.orchestration.policy_group import PolicyGroup
from rlstack.orchestration.roles import EngineLost
from rlstack.orchestration.weight_sync import WeightSync


def on_shared_gpus(config: RunConfig) -> RunConfig:
    """The settings with the one way for weights that there is between two processes on one GPU.

    Raises ConfigError if they ask for another one.
    """
    transfer = config.transfer
    why = "with cluster.placement = colocated on GPUs, for NCCL does not join two ranks on one"
    if transfer.method is not TransferMethod.reshard:
        raise ConfigError(f"transfer.method = {transfer.method.value}: reshard is accepted {why}; set it so")
    if transfer.channel is TransferChannel.network:
        raise ConfigError(f"transfer.channel = network: auto | ipc is accepted {why}; set it to auto")
    return replace(config, transfer=replace(transfer, channel=TransferChannel.ipc))


def work_in_shifts(policy: PolicyGroup, engines: EngineGroup, weight_sync: WeightSync) -> None:
    """Give the memory to whoever is about to be asked for something, which waits until it is there."""
    shifts = Shifts(policy, engines)
    policy.before_work(shifts.to_policy)
    engines.before_work(shifts.to_engines)
    weight_sync.before_round(shifts.to_sync)


class Shift(Enum):
    policy = auto()
    engines = auto()


class Shifts:
    """Who has the memory; at first that is not known."""

    def __init__(self, policy: PolicyGroup, engines: EngineGroup) -> None:
        self._policy = policy
        self._engines = engines
        self._now: Shift | None = None

    def to_policy(self) -> None:
        """For a step: the engines answer what they were asked for, and go to sleep."""
        if self._now is not Shift.policy:
            self._engines.finish()
            self._tell(self._engines.sleep)
            self._now = Shift.policy

    def to_engines(self) -> None:
        """For sampling."""
        self._wake(weights_only=False)

    def to_sync(self) -> None:
        """For weights to arrive, after which the engines wake altogether, by themselves."""
        self._wake(weights_only=True)

    def _wake(self, *, weights_only: bool) -> None:
        if self._now is not Shift.engines:
            self._now = Shift.engines
            self._policy.release_memory()
            self._tell(lambda: self._engines.wake(weights_only=weights_only))

    def _tell(self, engines: Callable[[], None]) -> None:
        while True:
            try:
                engines()
            except EngineLost as lost:
                self._engines.mend(lost)  # with one that is awake
            else:
                return
