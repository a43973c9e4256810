"""The sections of a run's report on where time and energy went; None where there is nothing to tell."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence

from rlstack.telemetry import run_figures, time_figures
from rlstack.telemetry.clocks import MAX_OFFSET_S
from rlstack.telemetry.html_page import Section, figure, folded, side_by_side, table, text
from rlstack.telemetry.occupancy import Piece, within
from rlstack.telemetry.run_record import RunRecord, Times
from rlstack.telemetry.time_tables import GPU_HEADER, INTERVAL_HEADER, gpu_rows, interval_rows, share_rows
from rlstack.telemetry.timeline import Span
from rlstack.telemetry.waiting import account


def shares(run: RunRecord) -> Section | None:
    """The steps' time, which leaves out what came before the first and after the last one."""
    roles = run.times.all_steps.roles
    if not roles:
        return None
    header = ["role", "busy", "waiting", "idle", "busy with, % of the steps", "waiting for, %"]
    kinds = (("policy", "The policy's ranks in each step"), ("engine", "The engines in each step"))
    over = [time_figures.over_steps(run.steps, kind, title) for kind, title in kinds]
    return Section(
        "Where the time went",
        [
            text(
                "Of the steps' time, start-up and the evaluations around them left out. Waiting: what a role "
                "does next is being made by others. Idle: it has done all that it may do yet, ahead of the "
                "trainer."
            ),
            *([text(words)] if (words := clock_words((run.summary or {}).get("clocks", {}))) else []),
            figure(time_figures.shares(roles), height_px=time_figures.height_px(len(roles))),
            table(header, share_rows(roles), words=[4, 5]),
            side_by_side(figure(each) for each in over if each is not None),
        ],
    )


def clock_words(offsets: Mapping[str, float]) -> str:
    """By how much the spans of each node were moved, where its clock is not the driver's; else empty.

    offsets: seconds that the clock of each node is ahead, by its address.
    """
    told = {node: offset_s for node, offset_s in offsets.items() if abs(offset_s) > MAX_OFFSET_S}
    moved = ", ".join(f"{node} by {-offset_s:+.2f} s" for node, offset_s in sorted(told.items()))
    return (
        f"Clocks differ; what these nodes measured was moved to the driver's clock: {moved}." if moved else ""
    )


def timeline(run: RunRecord) -> Section | None:
    """The roles' work in the middle of the steps that are known whole; None without spans."""
    steps = longest_whole(run.times)
    if not steps:
        return None
    pieces = account(run.times.spans, steps[0].start_s, steps[-1].end_s)
    first, last = window(pieces, [(step.start_s, step.end_s) for step in steps], time_figures.MAX_PIECES)
    shown = steps[first : last + 1]
    inside = {role: list(within(own, shown[0].start_s, shown[-1].end_s)) for role, own in pieces.items()}
    drawn = time_figures.timeline(inside, [step.start_s for step in shown], run.start_s)
    caption = (
        f"Steps {shown[0].step} to {shown[-1].step} of {len(run.times.steps)}, a thin line where one begins; "
        f"drag to zoom in, double-click to see all. Pale: waiting. {_extent(run.times, steps)} in "
        "timeline.json, for ui.perfetto.dev."
    )
    return Section(
        "Timeline", [figure(drawn, caption=caption, height_px=time_figures.height_px(len(inside)) + 60)]
    )


def longest_whole(times: Times) -> list[Span]:
    """The most steps in a row of which all spans are known; the first ones of those that are as many."""
    in_each = [
        [step for step in times.steps if start_s <= step.start_s and step.end_s <= end_s]
        for start_s, end_s in times.whole
    ]
    return max(in_each, key=len, default=[])


def _extent(times: Times, steps: Sequence[Span]) -> str:
    """The steps that timeline.json has, as the beginning of a sentence; `steps`: those of longest_whole."""
    if len(steps) == len(times.steps):
        return "The whole run is"
    return f"Steps {steps[0].step} to {steps[-1].step} and the slowest others are"


def window(
    pieces: Mapping[str, Sequence[Piece]], steps: Sequence[tuple[float, float]], limit: int
) -> tuple[int, int]:
    """The first and last of the steps around the middle that have at most `limit` pieces; at least one."""
    starts = sorted(piece.start_s for own in pieces.values() for piece in own)
    counts = [bisect_left(starts, end_s) - bisect_left(starts, start_s) for start_s, end_s in steps]
    first = last = len(steps) // 2
    total = counts[first]
    while True:
        room = limit - total
        if last + 1 < len(steps) and counts[last + 1] <= room:
            last += 1
            total += counts[last]
        elif first > 0 and counts[first - 1] <= room:
            first -= 1
            total += counts[first]
        else:
            return first, last


def sync_intervals(run: RunRecord) -> Section | None:
    """What every role did from one sync to the next."""
    shown, number = run.times.intervals, run.times.num_intervals
    if not shown:
        return None
    which = "Each interval" if len(shown) == number else f"The last {len(shown)} of {number} intervals"
    rows = interval_rows(shown, run.samples)
    return Section(
        "Sync intervals", [folded(f"{which}, role by role", [table(INTERVAL_HEADER, rows, words=[1])])]
    )


def gpus(run: RunRecord) -> Section | None:
    """Power, energy, use, memory and temperature of each role's GPUs; None where NVML has told nothing."""
    if not run.samples or not run.times.steps:
        return None
    rows = gpu_rows(run.samples, run.times.all_steps)
    drawn = run_figures.power(run.samples, run.start_s)
    return Section("GPUs", [table(GPU_HEADER, rows), *([figure(drawn)] if drawn is not None else [])])
