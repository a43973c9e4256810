"""Draw what engines and policy do over time in four regimes.

    python tools/regimes_figure.py docs/images/regimes.svg

The order of the work is that of the schedule, on the simulator that plans use; the lengths of the pieces are
chosen to be seen, and are the same in all four.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rlstack.orchestration.schedule import Schedule
from rlstack.tuning.parts import Sharing
from rlstack.tuning.simulate import Job, Span, simulate

NUM_STEPS = 6
SAMPLE_S, TRAIN_S, SYNC_S = 1.0, 0.8, 0.22
REGIMES = (
    ("offline", "s = null", Schedule(num_steps=NUM_STEPS, sync_interval=None)),
    ("semi-online", "s = 3", Schedule(num_steps=NUM_STEPS, sync_interval=3)),
    ("online", "s = 1", Schedule(num_steps=NUM_STEPS, sync_interval=1)),
    ("one step off", "s = 1, lag = 1", Schedule(num_steps=NUM_STEPS, sync_interval=1, lag=1)),
)
LEFT, SECOND, LANE, ROW, TOP = 206, 64, 25, 92, 46  # px; SECOND: of one second
WIDTH, HEIGHT = LEFT + 12 * SECOND + 12, TOP + len(REGIMES) * ROW + 22
STYLE = """
  text { font: 13px system-ui, "Segoe UI", Helvetica, Arial, sans-serif; fill: #24292f }
  .card { fill: #ffffff } .line { stroke: #d0d7de } .quiet { fill: #57606a } .name { font-weight: 600 }
  .mono { font-family: ui-monospace, Menlo, Consolas, monospace; font-size: 12px }
  .box text, text.box { fill: #ffffff; font-weight: 600; text-anchor: middle } .sync { fill: #24292f }
  .v0 { fill: #5b6770 } .v1 { fill: #2f6fb7 } .v2 { fill: #23806f } .v3 { fill: #a5541c }
  .v4 { fill: #7d4fb0 } .v5 { fill: #a83a60 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .card { fill: #1b2027 } .line { stroke: #3d444d } .quiet { fill: #9aa4af }
    .sync { fill: #e6edf3 }
  }"""


@dataclass(frozen=True, slots=True)
class Piece:
    """What a job is in the figure; a sync has no step."""

    lane: int  # 0: the engines, 1: the policy
    step: int | None
    version: int  # that writes, or wrote, the rollouts; the one that arrives


def jobs(schedule: Schedule) -> Iterator[tuple[Piece, Job]]:
    """The loop of rlstack.train: what may be sampled is asked for before a step is trained on."""
    versions = {schedule.version_for(step) for step in range(schedule.num_steps)}
    place = 0
    held, next_step = 0, 0
    sampled: dict[int, int] = {}
    before: tuple[int, ...] = ()  # the sync that brought the engines' version
    for step in range(schedule.num_steps):
        while next_step < schedule.num_steps and schedule.version_for(next_step) <= held:
            yield (
                Piece(0, next_step, schedule.version_for(next_step)),
                Job("engines", "", SAMPLE_S, 1, before),
            )
            sampled[next_step] = place
            place, next_step = place + 1, next_step + 1
        yield Piece(1, step, schedule.version_for(step)), Job("policy", "", TRAIN_S, 1, (sampled[step],))
        place += 1
        if schedule.syncs_at(step + 1) and step + 1 in versions:
            held = step + 1
            yield Piece(0, None, held), Job("engines", "", SYNC_S, 1, (place - 1,))
            before = (place,)
            place += 1


def row(top: int, name: str, setting: str, schedule: Schedule) -> Iterator[str]:
    """One regime: its words, its two lanes, and the versions that write its steps."""
    pieces, work = zip(*jobs(schedule), strict=True)
    spans = simulate(work, Sharing())
    versions = " ".join(str(schedule.version_for(step)) for step in range(NUM_STEPS))
    yield f'<text class="name" x="16" y="{top + 17}">{name}</text>'
    yield f'<text class="quiet mono" x="16" y="{top + 36}">{setting}</text>'
    yield f'<text class="quiet mono" x="16" y="{top + 54}">{versions}</text>'
    for lane, word in enumerate(("engines", "policy")):
        middle = top + lane * (LANE + 6) + LANE / 2
        yield f'<text class="quiet" text-anchor="end" x="{LEFT - 10}" y="{middle + 4:g}">{word}</text>'
        yield f'<path class="line" d="M{LEFT} {middle:g}H{WIDTH - 12}"/>'
    for piece, span in zip(pieces, spans, strict=True):
        yield from drawn(piece, span, top + piece.lane * (LANE + 6))


def drawn(piece: Piece, span: Span, top: int) -> Iterator[str]:
    left, width = LEFT + span.start_s * SECOND, (span.end_s - span.start_s) * SECOND
    kind = "sync" if piece.step is None else f"v{piece.version}"
    yield (
        f'<rect class="{kind}" x="{left + 1:.1f}" y="{top}" width="{width - 2:.1f}" height="{LANE}" rx="3">'
        f"<title>{said(piece)}</title></rect>"
    )
    if piece.step is not None:
        yield f'<text class="box" x="{left + width / 2:.1f}" y="{top + 17}">{piece.step}</text>'


def said(piece: Piece) -> str:
    if piece.step is None:
        return f"sync of version {piece.version}"
    doing = "sampled by" if piece.lane == 0 else "trained on, with rollouts of"
    return f"step {piece.step}: {doing} version {piece.version}"


def legend() -> Iterator[str]:
    words = "A number is a step; its colour, the version that writes its rollouts:"
    yield f'<text class="quiet" x="16" y="26">{words}</text>'
    left = 452
    for version in range(NUM_STEPS):
        yield f'<rect class="v{version}" x="{left}" y="13" width="26" height="18" rx="3"/>'
        yield f'<text class="box" x="{left + 13}" y="26">{version}</text>'
        left += 30
    yield f'<rect class="sync" x="{left + 16}" y="13" width="13" height="18" rx="3"/>'
    yield f'<text class="quiet" x="{left + 36}" y="26">sync</text>'
    yield f'<text class="quiet" text-anchor="end" x="{WIDTH - 12}" y="{HEIGHT - 12}">time →</text>'


def figure() -> str:
    parts: Sequence[str] = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        "<title>What engines and policy do over time in four regimes</title>",
        f"<style>{STYLE}\n</style>",
        f'<rect class="card" width="{WIDTH}" height="{HEIGHT}" rx="8"/>',
        *legend(),
        *(part for i, regime in enumerate(REGIMES) for part in row(TOP + 12 + i * ROW, *regime)),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(figure(), encoding="utf-8")
