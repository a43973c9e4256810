"""Checkpoints of a run: written beside the steps that follow, and where the newest one takes the run up."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager

from rlstack.checkpoint.manifest import Digest
from rlstack.checkpoint.run_state import ROLLOUTS, RunState, write_rollouts
from rlstack.checkpoint.store import CheckpointStore
from rlstack.config.schema import RunConfig
from rlstack.errors import CheckpointError, UnreadableCheckpoint
from rlstack.files import naming
from rlstack.orchestration.places import Place, newest_place, remedy
from rlstack.orchestration.policy_group import PolicyGroup
from rlstack.orchestration.schedule import Schedule
from rlstack.orchestration.stream import RolloutStream
from rlstack.orchestration.sync_rounds import SyncRounds
from rlstack.telemetry.recorder import Recorder


class Saver:
    """Writes one checkpoint at a time, beside the steps after it, once the ranks have a snapshot."""

    def __init__(self, config: RunConfig, schedule: Schedule, recorder: Recorder) -> None:
        self._schedule = schedule
        self._recorder = recorder
        self._store = CheckpointStore(recorder.checkpoints, config.checkpoint, note=recorder.note)
        self._under_way: int | None = None  # the step of the checkpoint that is being written
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._rollouts: Future[Digest] | None = None  # the file that the thread writes

    def go_to(self, place: Place) -> None:
        """Take the run and its schedule to `place`; go_on() has to follow, which takes its files there.

        Raises ConfigError, with all as it was, if the files do not fit it.
        """
        state = place.state
        self._recorder.rewind(state.step, state.positions, state.recorder, later=True)
        self._schedule.go_on_after(self._recorder.history.intervals)
        if place.checkpoint is not None:
            self._recorder.saved_step = state.step
        self._recorder.note(_where(place))

    def go_on(self) -> None:
        """Cut the files back to where go_to() was, now that the ranks hold what they held there."""
        self._recorder.go_on()
        self._store.sweep()

    def whole(self, place: Place, policy: PolicyGroup) -> Place:
        """`place`, if the ranks find the policy's files of its checkpoint as they were written.

        If they do not, an older one, as go_back(). Raises CheckpointError, with all files as they were, if
        none is whole, and UnreadableCheckpoint if one that may be cannot be read.
        """
        if place.checkpoint is None:
            return place
        try:
            policy.verify(place.checkpoint)
            return place
        except UnreadableCheckpoint:
            raise
        except CheckpointError:
            pass
        try:
            return self.go_back(policy)
        except UnreadableCheckpoint:
            raise
        except CheckpointError as error:
            run = self._recorder.checkpoints.parent
            raise CheckpointError(f"{error}\n{remedy(run)}") from None

    def go_back(self, policy: PolicyGroup) -> Place:
        """As go_to() the newest checkpoint that the ranks find whole, or the start of a run without any yet.

        Raises CheckpointError, with all as it was, if none is whole any more, or it cannot be read.
        """
        self._drop_rollouts()
        self._under_way = None  # the ranks that were writing it have gone
        place = newest_place(self._store, verify=policy.verify)
        if place is None and self._recorder.saved_step is not None:
            raise CheckpointError(
                f"{self._recorder.checkpoints}: the checkpoints that were written have gone"
            )
        place = place or Place()
        self.go_to(place)
        return place

    def save_due(self, version: int, policy: PolicyGroup, rollouts: RolloutStream, syncs: SyncRounds) -> None:
        """Begin the checkpoint of `version` if one is due; the step that made it has been logged.

        Finishes the one before if it has been written, or has to be. Raises OSError or RoleError if a
        checkpoint cannot be written; those before it stay.
        """
        if self._under_way is not None and self._are_rollouts_written() and policy.is_saved():
            self.finish(policy)
        if self._schedule.saves_at(version):
            self._begin(version, policy, rollouts, syncs)

    def save_now(self, version: int, policy: PolicyGroup, rollouts: RolloutStream, syncs: SyncRounds) -> None:
        """As `save_due`, whether one is due or not, and wait until it is there."""
        if version not in (self._under_way, self._recorder.saved_step):
            self._begin(version, policy, rollouts, syncs)
        self.finish(policy)

    def finish(self, policy: PolicyGroup) -> None:
        """Wait for the checkpoint that is being written, if there is one, and put it in place."""
        if (step := self._under_way) is None:
            return
        with self._recorder.saving(), self._written(step):
            assert self._rollouts is not None
            digests = {**policy.finish_save(), ROLLOUTS: self._rollouts.result()}
            evaluation = self._recorder.history.evaluations.get(step, {})
            self._store.commit(step, evaluation.get("eval/selection"), digests)
            self._recorder.saved_step, self._under_way = step, None

    def _begin(self, version: int, policy: PolicyGroup, rollouts: RolloutStream, syncs: SyncRounds) -> None:
        self.finish(policy)
        with self._recorder.saving():
            syncs.settle()
            with self._written(version):
                draft = self._store.draft(version)
                policy.save(draft)
                self._under_way = version
                self._rollouts = self._writer.submit(write_rollouts, draft, rollouts.finished())
                self._state(version, syncs).write(draft)

    @contextmanager
    def _written(self, step: int) -> Iterator[None]:
        """Where the checkpoint of `step` cannot be written, free the room that its draft takes."""
        try:
            with naming(self._recorder.checkpoints):
                yield
        except Exception:
            self._under_way = None
            self._drop_rollouts()
            self._store.empty_draft(step)
            raise

    def _are_rollouts_written(self) -> bool:
        return self._rollouts is not None and self._rollouts.done()

    def _drop_rollouts(self) -> None:
        """Wait until the thread writes nothing; what it could not write is of no interest any more."""
        if self._rollouts is not None:
            wait([self._rollouts])
            self._rollouts = None

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
