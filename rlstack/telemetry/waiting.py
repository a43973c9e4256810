"""Why a role does nothing: what it waits for is told by what the controller waits for. Pure.

Outside its spans a role is waiting while what it does next is being made by others, and idle if it has done
all that may be done yet: engines that have sampled as far ahead of the trainer as the schedule allows,
rewards whose groups are all scored.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum

from rlstack.telemetry.occupancy import Piece, State, append, cover
from rlstack.telemetry.timeline import CONTROLLER, Span


class Kind(StrEnum):
    controller = "controller"
    policy = "policy"
    engine = "engine"
    reward = "reward"


class Reason(StrEnum):
    """What is waited for."""

    rollouts = "rollouts"
    reward = "reward"
    training = "training"
    sync = "sync"
    evaluation = "evaluation"
    start_up = "start_up"
    shut_down = "shut_down"
    pipeline_bubble = "pipeline_bubble"  # another pipeline stage
    controller = "controller"  # the driver's own work, and calls on their way


# Who makes what the controller waits for, and who cannot go on without it: others are ahead of the trainer.
_MAKERS: dict[str, Kind] = {
    Reason.rollouts: Kind.engine,
    Reason.reward: Kind.reward,
    Reason.training: Kind.policy,
}
_FOLLOWERS: dict[str, set[Kind]] = {
    Reason.rollouts: {Kind.policy, Kind.reward},
    Reason.reward: {Kind.policy},
    Reason.training: set(),
    Reason.controller: {Kind.policy},
}


def kind_of(role: str) -> Kind:
    """Roles are called "controller", "policy rank 0", "engine 0", "rewards math", "reward model NAME 0"."""
    word = role.split(" ", 1)[0]
    return Kind.reward if word == "rewards" else Kind(word)


def account(
    spans: Iterable[Span], start_s: float, end_s: float, *, roles: Iterable[str] = ()
) -> dict[str, list[Piece]]:
    """What each role did from `start_s` to `end_s`, without gaps or overlaps; the controller comes first.

    The controller itself is busy where it has no span. `roles` are there whether they have a span or not.
    """
    of_role: dict[str, list[Span]] = {role: [] for role in (CONTROLLER, *roles)}
    of_kind: dict[Kind, list[Span]] = {kind: [] for kind in Kind}
    for span in spans:
        of_role.setdefault(span.role, []).append(span)
        of_kind[kind_of(span.role)].append(span._replace(phase="", reason=None))
    covers = {role: cover(own, start_s, end_s) for role, own in of_role.items()}
    at_work = {kind: cover(alike, start_s, end_s) for kind, alike in of_kind.items()}
    controller = covers.pop(CONTROLLER)
    explained = {
        role: _explain(kind_of(role), own, controller, at_work[kind_of(role)]) for role, own in covers.items()
    }
    return {CONTROLLER: [_never_idle(piece) for piece in controller], **explained}


def _explain(
    kind: Kind, own: Sequence[Piece], controller: Sequence[Piece], peers: Sequence[Piece]
) -> list[Piece]:
    """A role's pieces, with a reason where it waits; `peers`: when any role of its kind is at work."""
    pieces: list[Piece] = []
    for begin, end, (mine, driver, any_peer) in _overlay(own, controller, peers):
        state, what = mine.state, mine.what
        if state is State.idle:
            reason = driver.what if driver.state is State.waiting else Reason.controller
            state, what = _outside_spans(kind, reason, peers_work=any_peer.state is State.busy)
        append(pieces, begin, end, state, what)
    return pieces


def _outside_spans(kind: Kind, reason: str, *, peers_work: bool) -> tuple[State, str]:
    """What a role is doing that does nothing, while the controller waits for `reason`."""
    if _MAKERS.get(reason) is kind:
        # The controller waits for this very kind: for others of it, or the call is on its way.
        return State.waiting, reason if peers_work else Reason.controller
    if kind in _FOLLOWERS.get(reason, Kind):
        return State.waiting, reason
    return State.idle, ""


def _overlay(*covers: Sequence[Piece]) -> Iterator[tuple[float, float, list[Piece]]]:
    """The stretches in which none of the covers, which are of the same time, goes on to its next piece."""
    places = [0] * len(covers)
    while all(place < len(pieces) for place, pieces in zip(places, covers, strict=True)):
        now = [pieces[place] for place, pieces in zip(places, covers, strict=True)]
        end_s = min(piece.end_s for piece in now)
        yield max(piece.start_s for piece in now), end_s, now
        places = [place + (piece.end_s <= end_s) for place, piece in zip(places, now, strict=True)]


def _never_idle(piece: Piece) -> Piece:
    return piece._replace(state=State.busy, what="controller") if piece.state is State.idle else piece
