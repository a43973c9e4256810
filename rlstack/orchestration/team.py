"""All that a run's loop gives orders to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rlstack.config.schema import RunConfig
from rlstack.data.sampling import PromptSampler
from rlstack.orchestration.cluster import Cluster
from rlstack.orchestration.engine_group import EngineGroup
from rlstack.orchestration.policy_group import PolicyGroup
from rlstack.orchestration.saving import Place
from rlstack.orchestration.weight_sync import WeightSync
from rlstack.rewards.router import Rewards
from rlstack.telemetry.recorder import Recorder


@dataclass(slots=True)
class Team:
    policy: PolicyGroup
    engines: EngineGroup
    rewards: Rewards
    weight_sync: WeightSync

    def go_to(self, place: Place) -> None:
        """Have the policy and the engines hold what they held at `place`.

        A policy that goes to the start has just been built.
        """
        if place.checkpoint is not None:
            self.policy.restore(place.checkpoint)
        version = place.state.served_version
        if self.engines.version != version:
            self.weight_sync.bring(version, self.engines.roles)
            self.engines.version = version


@contextmanager
def assembled(config: RunConfig, prompts: PromptSampler, recorder: Recorder) -> Iterator[Team]:
    """Start every process of a run; all have ended when the context is left, whatever the reason."""
    with (
        Cluster(config, recorder.logs) as cluster,
        Rewards(config, cluster.start_reward_models()) as rewards,
    ):
        with recorder.starting("policy and engines"):
            policy, engines = cluster.launch()
            probe = prompts.take(0, 1)[0].token_ids
            weight_sync = WeightSync(policy, engines, config, host=cluster.host, probe=probe)
        yield Team(policy, engines, rewards, weight_sync)
