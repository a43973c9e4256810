"""When the parts of a sync happen: around the steps that need not wait for it, or all at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

from rlstack.config.schema import RunConfig, TransferMethod
from rlstack.orchestration.schedule import Schedule
from rlstack.orchestration.stream import RolloutStream
from rlstack.orchestration.weight_sync import Ordered, WeightSync


class SyncRounds:
    """Begins the round of a version when the policy holds it, and ends it before a step needs its rollouts.

    With `rollout.overlap` nobody waits in between: the policy goes on with the steps of older rollouts, of
    which there are some if schedule.lag >= 1, and sends beside that; the engines receive while they sample
    what the older version still has to write, and then take over. An engine has room for one version to
    arrive, so a round ends before the next one begins. Where a round ends depends on the schedule alone.

    Without it, or with transfer.method=gather, in which policy and engines must stand still together, the
    older version's rollouts are sampled first and the round is one piece.
    """

    def __init__(
        self,
        weight_sync: WeightSync,
        rollouts: RolloutStream,
        schedule: Schedule,
        config: RunConfig,
        *,
        phase: Callable[[str], AbstractContextManager[None]],
        settled: Mapping[str, Any] | None = None,
    ) -> None:
        """phase: counts the time in it towards a part of the step, generate_wait or sync.

        settled: what another one had left when this one goes on in its place.
        """
        self._weight_sync = weight_sync
        self._rollouts = rollouts
        self._schedule = schedule
        self._overlap = config.rollout.overlap and config.transfer.method is TransferMethod.reshard
        self._phase = phase
        left = settled or {}
        self._round: Ordered | dict[str, float] | None = left.get("metrics")  # under way, or its metrics
        self._version: int = left.get("version", 0)  # of the last round

    def begin(self, version: int) -> None:
        """What the engines are asked for from now on, they do with `version`, which the policy holds."""
        assert self._round is None, "end comes first"
        self._version = version
        if self._overlap:
            with self._phase("sync"):
                self._weight_sync.begin(version)
                self._round = self._weight_sync.order(version)
            return
        self._complete(version)
        with self._phase("sync"):
            self._round = self._weight_sync.run(version)

    def end_due(self, version: int) -> dict[str, float]:
        """End the round under way if it has to before the step after `version`; its metrics, else none.

        That step needs its rollouts, or another round begins at `version`.
        """
        if self._round is None:
            return {}
        is_needed = version >= self._version + self._schedule.lag
        is_next = version > self._version and self._schedule.syncs_at(version)
        return self.end() if is_needed or is_next else {}

    def settle(self) -> None:
        """Let the engines hold the last version now; when the round ends for the steps stays as it is."""
        if isinstance(self._round, Ordered):
            self._round = self.end()

    def settled(self) -> dict[str, object]:
        """After `settle`, the round that has still to end for the steps, as JSON has it; {} if none has."""
        assert not isinstance(self._round, Ordered), "settle comes first"
        return {} if self._round is None else {"version": self._version, "metrics": self._round}

    def end(self) -> dict[str, float]:
        """End the round under way, if there is one; its metrics. Raises TransferError or RoleError."""
        under_way, self._round = self._round, None
        if not isinstance(under_way, Ordered):
            return under_way or {}
        self._complete(under_way.version)  # or the limit of the transfer would count their sampling
        with self._phase("sync"):
            return self._weight_sync.end(under_way)

    def _complete(self, version: int) -> None:
        with self._phase("generate_wait"):
            self._rollouts.complete(before=version)
