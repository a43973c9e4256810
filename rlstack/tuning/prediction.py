"""What the cost model says about one setup."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

# Roles; engines are "engine 0" and up. The policy is one role: its ranks work together.
CONTROLLER, POLICY, REWARDS = "controller", "policy", "rewards"

# Why a role waits: for whose work. BUBBLE is a pipeline stage's within a training step.
ROLLOUTS, REWARD, TRAIN, SYNC, EVALUATE, CONTROL, BUBBLE = (
    "rollouts",
    "reward",
    "train",
    "sync",
    "evaluate",
    "controller",
    "pipeline bubble",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleTime:
    """One role's seconds of a run: busy + waiting + idle are its wall-clock."""

    busy_s: float
    waiting_s: Mapping[str, float]  # by reason
    idle_s: float  # after its last work

    @property
    def wall_s(self) -> float:
        return self.busy_s + sum(self.waiting_s.values()) + self.idle_s

    @property
    def busy_share(self) -> float:
        return self.busy_s / self.wall_s

    @property
    def idle_share(self) -> float:
        """Waiting included: all but the busy share."""
        return 1 - self.busy_share


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """A run of `num_steps` steps, start-up and the evaluations before and after it left out."""

    num_steps: int
    step_s: float  # in the steady state: a mean over whole intervals, the first one left out
    wall_s: float
    roles: Mapping[str, RoleTime]
    sync_s: float  # from each sync's begin to its end, added up
    sync_pause_s: float  # how long generation stood still for syncs, added up, of one engine
    tokens_generated: float
    tokens_trained: float

    @property
    def sync_share(self) -> float:
        """Of the run's time, generation stood still for a sync."""
        return self.sync_pause_s / self.wall_s

    @property
    def tokens_generated_per_s(self) -> float:
        return self.tokens_generated / self.wall_s

    @property
    def tokens_trained_per_s(self) -> float:
        return self.tokens_trained / self.wall_s

    @property
    def engine_idle_share(self) -> float:
        """Mean over the engines, waiting included."""
        engines = [time for name, time in self.roles.items() if name.startswith("engine ")]
        return sum(time.idle_share for time in engines) / len(engines)


def engine_name(index: int) -> str:
    """The role of the engine with this index."""
    return f"engine {index}"
