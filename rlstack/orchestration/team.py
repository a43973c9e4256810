"""All that a run's loop gives orders to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rlstack.config.own_code import OwnCode
from rlstack.config.schema import Placement, RunConfig
from rlstack.orchestration.cluster import Cluster
from rlstack.orchestration.places import Place
from rlstack.orchestration.recovery import EngineRecovery
from rlstack.orchestration.roles import BackToCheckpoint, EngineLost
from rlstack.orchestration.shared_gpus import work_in_shifts
from rlstack.orchestration.weight_sync import WeightSync
from rlstack.rewards.router import Rewards
from rlstack.telemetry.recorder import Recorder


class Team:
    """Policy, engines and rewards, and the way between the first two."""

    def __init__(
        self, cluster: Cluster, rewards: Rewards, config: RunConfig, *, probe: Sequence[int]
    ) -> None:
        """probe: see WeightSync.

        Raises TransferError if an engine has loaded other weights than the policy.
        """
        self._cluster = cluster
        self._colocated = config.cluster.placement is Placement.colocated
        self.rewards = rewards
        self.policy, self.engines = cluster.launch()
        self.weight_sync = WeightSync(self.policy, self.engines, config, host=cluster.host, probe=probe)
        self.engines.mend_with(EngineRecovery(self.engines, cluster.restarts, self.weight_sync).mend)
        self._share()
        self._check_loaded()

    def go_to(self, place: Place) -> None:
        """Have the policy and the engines hold what they held at `place`; before the start nothing was done.

        Raises BackToCheckpoint if a rank of the policy was lost meanwhile.
        """
        if place.checkpoint is not None:
            self.policy.restore(place.checkpoint)
        if self.engines.version != place.state.served_version:
            self.weight_sync.hold(place.state.served_version)

    def rebuild_policy(self, lost: BackToCheckpoint) -> None:
        """Replace all ranks of the policy, and an engine if it is what was lost; go_to() has to follow.

        Raises RoleError if that was one restart too many, or if a rank cannot be started.
        """
        self.policy = self._cluster.restart_policy(lost)
        self.weight_sync.follow(self.policy)
        self._share()

    def _check_loaded(self) -> None:
        """See that the engines have loaded the policy's weights, before anything is sampled with them."""
        while True:
            try:
                return self.weight_sync.check_loaded()
            except EngineLost as lost:
                self.engines.mend(lost)

    def _share(self) -> None:
        if self._colocated:
            work_in_shifts(self.policy, self.engines, self.weight_sync)


@contextmanager
def assembled(
    config: RunConfig,
    recorder: Recorder,
    *,
    probe: Sequence[int],
    own: OwnCode,
    max_prompt_tokens: int | None = None,
) -> Iterator[Team]:
    """Start every process of a run; all have ended when the context is left, whatever the reason.

    max_prompt_tokens: see Cluster.
    """
    with (
        Cluster(
            config,
            recorder.logs,
            note=recorder.restarted,
            say=recorder.note,
            step=lambda: recorder.history.last_step,
            own_loss=own.loss,
            max_prompt_tokens=max_prompt_tokens,
        ) as cluster,
        Rewards(config, cluster.start_reward_models(), given=own.rewards) as rewards,
    ):
        with recorder.starting("policy and engines"):
            team = Team(cluster, rewards, config, probe=probe)
        yield team
