"""What takes the place of an engine that was lost, and what it needs to go on as the one before."""

from __future__ import annotations

from rlstack.orchestration.engine_group import EngineGroup
from rlstack.orchestration.engine_seat import EngineSeat
from rlstack.orchestration.restarts import Restarts
from rlstack.orchestration.roles import EngineLost, OlderVersionLost, RoleError
from rlstack.orchestration.weight_sync import WeightSync


class EngineRecovery:
    """For EngineGroup.mend_with. In the main thread, where nothing else gives the roles orders meanwhile.

    A new engine gets the version that the others hold, and is asked for what the one before has not
    answered. In a round of a sync, in which everyone takes part, all engines finish what they have to sample
    of the older version, and the round is done again from its beginning.
    """

    def __init__(self, engines: EngineGroup, restarts: Restarts, weight_sync: WeightSync | None) -> None:
        """weight_sync: None where the engines hold version 0, as they load it, all the time."""
        self._engines = engines
        self._restarts = restarts
        self._weight_sync = weight_sync

    def mend(self, error: RoleError) -> None:
        """Replace who was lost, and whoever is lost meanwhile.

        Raises:
            BackToCheckpoint: the policy was lost meanwhile, or the engine had rollouts to sample of a version
                that nobody holds any more.
            RoleError: `error`, if nobody was lost, or one loss too many.
        """
        lost: EngineLost | None = self._who(error)
        fresh: list[EngineSeat] = []  # those replaced so far, of which none answers anything yet
        while lost is not None and (seat := self._engines.seat_of(lost.role)) is not None:
            under_way = self._weight_sync.under_way if self._weight_sync is not None else None
            if under_way is not None and seat.open_before(under_way.version):
                raise OlderVersionLost(str(lost), role=lost.role, exception=lost.exception) from lost
            try:
                if seat not in fresh:
                    fresh.append(seat)
                with self._restarts.replacing(lost):
                    self._replace(seat, fresh)
                lost = None
            except EngineLost as another:
                lost = another

    def _who(self, error: RoleError) -> EngineLost:
        """Who was lost, if that is why another engine refuses to go on; otherwise raises what there is."""
        if isinstance(error, EngineLost):
            return error
        lost = self._weight_sync.who_is_lost() if self._weight_sync is not None else None
        if isinstance(lost, EngineLost):
            return lost
        raise lost or error

    def _replace(self, seat: EngineSeat, fresh: list[EngineSeat]) -> None:
        """Replace `seat`, the last of the `fresh` ones that was lost, and let all of these go on."""
        engines, sync = self._engines, self._weight_sync
        seat.replace()
        if sync is not None and sync.under_way is not None:
            version = sync.under_way.version
            engines.finish_before(version)
            engines.withdraw()
            engines.load(seat.role)
            sync.redo()
            engines.version = version
            engines.ask_again()
            return
        engines.load(seat.role)
        if sync is not None and engines.version:
            sync.bring(engines.version, [each.role for each in fresh])
        elif sync is not None:
            sync.check_loaded([each.role for each in fresh])
        for each in fresh:
            each.ask_again()
