"""What can happen to a run: which process is hit, in which phase, how. The table of faults is data."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class Action(StrEnum):
    kill = "kill"  # SIGKILL
    stall = "stall"  # SIGSTOP: the process is there, and never answers again


class Role(StrEnum):
    """A process of the run; the names are those on its timeline where it has one there."""

    policy_0 = "policy rank 0"
    policy_1 = "policy rank 1"
    engine = "engine 0"
    engine_worker = "engine worker"  # vLLM's own process below an engine of two ranks
    verifier = "math verifier"  # below the driver
    driver = "controller"


class Phase(StrEnum):
    generating = "generating"
    scoring = "scoring"
    forward = "forward"
    optimizer_step = "optimizer step"
    sync_begins = "sync begins"
    sync_lands = "sync lands"
    snapshot = "snapshot"  # of what is saved; the files are written beside the next steps
    writing = "writing"
    committing = "committing"  # the files are whole; the folder gets its name


class Moment(NamedTuple):
    """The `nth` time that `watcher` begins a span called `event`, or a call of `event`()."""

    watcher: Role
    event: str
    nth: int


# The run of tiny_run.py syncs at versions 4 and 8 and saves 3, 6 and 8. Most of these moments are after the
# first save and inside an interval, where the generator's version is not the policy's.
MOMENTS = {
    Phase.generating: Moment(Role.engine, "generate", 20),
    Phase.scoring: Moment(Role.driver, "score", 26),
    Phase.forward: Moment(Role.policy_0, "forward", 6),
    Phase.optimizer_step: Moment(Role.policy_1, "optimizer", 6),
    Phase.sync_begins: Moment(Role.policy_0, "begin_send()", 1),
    Phase.sync_lands: Moment(Role.engine, "commit_receive()", 1),
    Phase.snapshot: Moment(Role.policy_1, "save()", 2),
    Phase.writing: Moment(Role.policy_0, "write_data()", 2),
    Phase.committing: Moment(Role.driver, "commit()", 2),
}


class Fault(NamedTuple):
    """`action` upon `role` when `phase` begins, wherever that is."""

    role: Role
    phase: Phase
    action: Action

    @property
    def name(self) -> str:
        """As the name of a folder."""
        return "-".join((self.action, self.role, "at", self.phase)).replace(" ", "-")

    @property
    def needs(self) -> tuple[str, ...]:
        """Settings without which the run has no such process."""
        return ("rollout.tensor_parallel=2",) if self.role is Role.engine_worker else ()

    @property
    def moment(self) -> Moment:
        return MOMENTS[self.phase]


KILLS = tuple(Fault(role, phase, Action.kill) for role in Role for phase in Phase)
STALLS = tuple(
    Fault(role, phase, Action.stall)
    for role, phase in (
        (Role.policy_0, Phase.forward),
        (Role.policy_0, Phase.writing),
        (Role.policy_1, Phase.optimizer_step),
        (Role.policy_1, Phase.sync_begins),
        (Role.engine, Phase.generating),
        (Role.engine, Phase.sync_lands),
        (Role.engine_worker, Phase.generating),
        (Role.engine_worker, Phase.sync_begins),
        (Role.verifier, Phase.scoring),
        (Role.driver, Phase.optimizer_step),
        (Role.driver, Phase.writing),
    )
)
FAULTS = KILLS + STALLS
