"""The timeline as a trace for ui.perfetto.dev and chrome://tracing.

Format: the "Trace Event Format" of Chrome, an array of events: complete ones ("X"), names of processes
and threads ("M"), counters ("C"). Times are microseconds, here since the first span. A role is a process; its
first thread shows at each moment one state, the others its spans, inside each other as they were.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rlstack.files import written_at_once
from rlstack.telemetry.energy import by_role
from rlstack.telemetry.nvml import Sample
from rlstack.telemetry.occupancy import Piece, State
from rlstack.telemetry.timeline import CONTROLLER, Span
from rlstack.telemetry.waiting import account

Event = dict[str, Any]

STATE_THREAD = 0


def write_trace(
    path: Path,
    spans: Sequence[Span],
    samples: Sequence[Sample] = (),
    *,
    stretches: Sequence[tuple[float, float]] | None = None,
) -> None:
    """Write the spans of a run, at least one, and the samples of its GPUs to `path`; replaces it.

    stretches: as trace_events takes them.

    Raises:
        OSError: it cannot be written there.
    """
    with written_at_once(path) as file:
        for number, event in enumerate(trace_events(spans, samples, stretches=stretches)):
            file.write((",\n" if number else "[\n") + json.dumps(event))
        file.write("\n]\n")


def trace_events(
    spans: Sequence[Span],
    samples: Sequence[Sample] = (),
    *,
    stretches: Sequence[tuple[float, float]] | None = None,
) -> Iterator[Event]:
    """The events, role by role.

    stretches: the time of which the spans of all roles are known, in which roles have a state; None: all.
    """
    start_s, end_s = min(span.start_s for span in spans), max(span.end_s for span in spans)
    counters = by_role(samples)
    of_role: dict[str, list[Span]] = {CONTROLLER: []}
    for span in spans:
        of_role.setdefault(span.role, []).append(span)
    states: dict[str, list[Piece]] = {role: [] for role in of_role}
    for pieces in _accounted(spans, [(start_s, end_s)] if stretches is None else stretches):
        for role, own in pieces.items():
            states[role] += own
    for process, (role, own_spans) in enumerate(of_role.items()):
        lanes = nested_lanes(own_spans)
        yield from _names(process, role, num_lanes=len(lanes))
        for piece in states[role]:
            if piece.state is not State.idle:
                yield _state(process, piece, start_s)
        for lane, of_lane in enumerate(lanes):
            for span in of_lane:
                yield _complete(process, STATE_THREAD + 1 + lane, span, start_s)
        for sample in counters.get(role, []):
            yield from _counters(process, sample, start_s)


def _accounted(
    spans: Iterable[Span], stretches: Sequence[tuple[float, float]]
) -> Iterator[dict[str, list[Piece]]]:
    """The pieces of each role in each of the stretches, which are in order and apart."""
    inside: list[list[Span]] = [[] for _ in stretches]
    for span in spans:
        place = bisect_right(stretches, span.start_s, key=lambda stretch: stretch[1])
        while place < len(stretches) and stretches[place][0] < span.end_s:
            inside[place].append(span)
            place += 1
    for (start_s, end_s), own in zip(stretches, inside, strict=True):
        yield account(own, start_s, end_s)


def nested_lanes(spans: Iterable[Span]) -> list[list[Span]]:
    """The spans in as few lanes as it takes for two of a lane to be apart, or one inside the other."""
    lanes: list[list[Span]] = []
    around: list[list[Span]] = []  # of each lane: the spans that the last one lies in, and that one
    for span in sorted(spans, key=lambda span: (span.start_s, -span.end_s)):
        place = next((i for i, stack in enumerate(around) if _fits(span, stack)), len(lanes))
        if place == len(lanes):
            lanes.append([])
            around.append([])
        lanes[place].append(span)
        around[place].append(span)
    return lanes


def _fits(span: Span, around: list[Span]) -> bool:
    """Whether it begins inside the innermost of `around` that has not ended, and ends inside it too."""
    while around and around[-1].end_s <= span.start_s:
        around.pop()
    return not around or span.end_s <= around[-1].end_s


def _names(process: int, role: str, *, num_lanes: int) -> Iterator[Event]:
    yield _meta("process_name", process, name=role)
    yield _meta("process_sort_index", process, sort_index=process)
    yield _meta("thread_name", process, STATE_THREAD, name="state")
    for lane in range(num_lanes):
        yield _meta("thread_name", process, STATE_THREAD + 1 + lane, name="spans")


def _meta(kind: str, process: int, thread: int = STATE_THREAD, **value: Any) -> Event:
    return {"ph": "M", "name": kind, "pid": process, "tid": thread, "args": value}


def _state(process: int, piece: Piece, start_s: float) -> Event:
    name = piece.what if piece.state is State.busy else f"waiting: {piece.what}"
    return _event(process, STATE_THREAD, name, piece.state.value, piece.start_s, piece.end_s, start_s)


def _complete(process: int, thread: int, span: Span, start_s: float) -> Event:
    state = State.busy if span.reason is None else State.waiting
    event = _event(process, thread, span.phase, state.value, span.start_s, span.end_s, start_s)
    known = {"step": span.step, "waiting for": span.reason}
    return event | {"args": {name: value for name, value in known.items() if value is not None}}


def _counters(process: int, sample: Sample, start_s: float) -> Iterator[Event]:
    values = {
        "power, W": sample.power_w,
        "use": sample.use,
        "memory, GiB": sample.memory_gib,
        "temperature, C": sample.temperature_c,
    }
    for name, value in values.items():
        if value is not None:
            place = {"pid": process, "tid": STATE_THREAD, "ts": round((sample.time_s - start_s) * 1e6, 1)}
            yield {"ph": "C", "name": f"GPU {sample.gpu} {name}", "args": {"value": value}, **place}


def _event(
    process: int, thread: int, name: str, category: str, start_s: float, end_s: float, zero_s: float
) -> Event:
    begin, end = (round((time_s - zero_s) * 1e6, 1) for time_s in (start_s, end_s))
    place = {"pid": process, "tid": thread}
    return {"ph": "X", "name": name, "cat": category, "ts": begin, "dur": round(end - begin, 1), **place}
