"""Where every role's time went, for people: shares of the steps that add up. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from rlstack.telemetry.occupancy import Occupancy, Piece, State, within
from rlstack.telemetry.run_timeline import STEP
from rlstack.telemetry.timeline import Span
from rlstack.telemetry.waiting import account


class Use(NamedTuple):
    """What time was used for: a state, and the phase or reason."""

    state: State
    what: str

    @property
    def label(self) -> str:
        words = "own work" if self.what == STEP else self.what.replace("_", " ")
        return {State.busy: words, State.waiting: f"waiting: {words}", State.idle: "idle"}[self.state]


def pieces_of_steps(spans: Sequence[Span], steps: Sequence[Span]) -> dict[str, list[Piece]]:
    """Each role's pieces inside `steps`, which are the controller's laps; {} without a step."""
    if not steps:
        return {}
    accounted = account(spans, steps[0].start_s, steps[-1].end_s)
    return {
        role: [piece for start_s, end_s in _stretches(steps) for piece in within(pieces, start_s, end_s)]
        for role, pieces in accounted.items()
    }


def seconds_by_use(seconds: Occupancy) -> dict[Use, float]:
    """Busy first, then waiting, idle at the end."""
    uses = {Use(State.busy, phase): spent for phase, spent in sorted(seconds.busy_s.items())}
    uses |= {Use(State.waiting, reason): spent for reason, spent in sorted(seconds.waiting_s.items())}
    return uses | {Use(State.idle, ""): seconds.idle_s}


def percentages(parts: Sequence[float]) -> list[float]:
    """Shares of the parts' sum, rounded to a tenth so that they still add up to 100 (largest remainders)."""
    total = sum(parts)
    if total <= 0:
        return [0.0] * len(parts)
    exact = [1000 * part / total for part in parts]
    rounded = [int(share) for share in exact]
    by_remainder = sorted(range(len(parts)), key=lambda i: rounded[i] - exact[i])
    for i in by_remainder[: 1000 - sum(rounded)]:
        rounded[i] += 1
    return [share / 10 for share in rounded]


def share_rows(pieces: Mapping[str, Sequence[Piece]]) -> Iterator[list[str]]:
    """A row for each role: its name, shares busy, waiting and idle, and what the two first are made of."""
    for role, own in pieces.items():
        seconds = Occupancy.of(own)
        states = [sum(seconds.busy_s.values()), sum(seconds.waiting_s.values()), seconds.idle_s]
        shares = [f"{share:.1f} %" for share in percentages(states)]
        yield [role, *shares, _made_of(seconds.busy_s, seconds), _made_of(seconds.waiting_s, seconds)]


def _made_of(parts: Mapping[str, float], seconds: Occupancy) -> str:
    total_s = seconds.total_s or 1.0
    largest = sorted(parts.items(), key=lambda item: -item[1])
    shown = [(Use(State.busy, what).label, 100 * spent / total_s) for what, spent in largest]
    return ", ".join(f"{name} {share:.1f}" for name, share in shown if share >= 0.05)


def _stretches(steps: Sequence[Span]) -> list[tuple[float, float]]:
    """The steps' time, steps that follow each other as one."""
    stretches: list[tuple[float, float]] = []
    for step in steps:
        if stretches and stretches[-1][1] == step.start_s:
            stretches[-1] = (stretches[-1][0], step.end_s)
        else:
            stretches.append((step.start_s, step.end_s))
    return stretches
