"""Checkpoints of a run: written beside the steps that follow, and where the newest one takes the run up."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from rlstack.checkpoint.run_state import Rollouts, RunState, read_rollouts, write_rollouts
from rlstack.checkpoint.store import CheckpointStore
from rlstack.config.schema import RunConfig
from rlstack.errors import ConfigError
from rlstack.orchestration.policy_group import PolicyGroup
from rlstack.orchestration.schedule import Schedule
from rlstack.orchestration.stream import RolloutStream
from rlstack.orchestration.sync_rounds import SyncRounds
from rlstack.telemetry.recorder import Recorder


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """From where a run goes on."""

    checkpoint: Path | None = None  # None: the start
    state: RunState = field(
        default_factory=lambda: RunState(step=0, served_version=0, reference_version=0, positions={})
    )
    rollouts: Rollouts = field(default_factory=dict)  # finished ones of steps not trained on


class Saver:
    """Writes one checkpoint at a time, beside the steps after it, once the ranks have a snapshot."""

    def __init__(self, config: RunConfig, schedule: Schedule, recorder: Recorder) -> None:
        self._schedule = schedule
        self._recorder = recorder
        self._store = CheckpointStore(recorder.checkpoints, config.checkpoint, note=recorder.note)
        self._under_way: int | None = None  # the step of the checkpoint that is being written

    def go_back(self) -> Place:
        """Take the run's files and its schedule back to the newest checkpoint, or to the start.

        Raises ConfigError if the files or schedule.num_steps do not fit it.
        """
        self._under_way = None  # who was writing it has gone
        self._store.sweep()
        folder = self._store.newest()
        if folder is None:
            place = Place()
        else:
            place = Place(checkpoint=folder, state=RunState.read(folder), rollouts=read_rollouts(folder))
        state, num_steps = place.state, self._schedule.num_steps
        if state.step > num_steps:
            raise ConfigError(
                f"schedule.num_steps = {num_steps}: at least {state.step} is accepted with --resume, for "
                f"that is the step of {folder}"
            )
        self._recorder.rewind(state.step, state.positions, state.recorder)
        self._schedule.go_on_after(self._recorder.history.intervals)
        self._recorder.note(_where(place))
        return place

    def save_due(self, version: int, policy: PolicyGroup, rollouts: RolloutStream, syncs: SyncRounds) -> None:
        """Begin the checkpoint of `version` if one is due; the step that made it has been logged.

        Finishes the one before if it has been written, or has to be.
        """
        if self._under_way is not None and policy.is_saved():
            self.finish(policy)
        if not self._schedule.saves_at(version):
            return
        self.finish(policy)
        with self._recorder.saving():
            syncs.settle()
            draft = self._store.draft(version)
            policy.save(draft)
            write_rollouts(draft, rollouts.finished())
            self._state(version, syncs).write(draft)
            self._under_way = version

    def finish(self, policy: PolicyGroup) -> None:
        """Wait for the checkpoint that is being written, if there is one, and put it in place."""
        if self._under_way is None:
            return
        with self._recorder.saving():
            digests = policy.finish_save()
            evaluation = self._recorder.history.evaluations.get(self._under_way, {})
            self._store.commit(self._under_way, evaluation.get("eval/selection"), digests)
            self._under_way = None

    def _state(self, version: int, syncs: SyncRounds) -> RunState:
        return RunState(
            step=version,
            served_version=self._schedule.generator_version_at(version),
            reference_version=self._schedule.reference_version_at(version),
            positions=self._recorder.lengths(),
            recorder=self._recorder.state(),
            sync=syncs.settled(),
        )


def _where(place: Place) -> str:
    if place.checkpoint is None:
        return "goes on from the start: there is no checkpoint yet"
    step, served = place.state.step, place.state.served_version
    return f"goes on after step {step}, from {place.checkpoint.name}; the engines get version {served}"
