"""The trace that Perfetto and Chrome read."""

import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from rlstack.telemetry.nvml import Sample
from rlstack.telemetry.timeline import CONTROLLER, Span
from rlstack.telemetry.trace import nested_lanes, trace_events, write_trace

SPANS = [
    Span(CONTROLLER, "step", 100.0, 104.0, step=1),
    Span(CONTROLLER, "generate_wait", 100.0, 103.0, "rollouts", step=1),
    Span("engine 0", "generate", 100.5, 103.0, step=1),
    Span("engine 0", "sync", 102.0, 103.5, step=1),  # beside it, and longer
    Span("policy rank 0", "train", 103.0, 104.0, step=1),
    Span("policy rank 0", "exchange", 103.25, 103.5, "pipeline_bubble", step=1),
]


def test_the_file_is_an_array_of_events_with_what_the_format_asks_for(tmp_path: Path) -> None:
    path = tmp_path / "timeline.json"
    write_trace(path, SPANS)
    events = json.loads(path.read_text())
    assert {event["ph"] for event in events} == {"X", "M"}
    for event in events:
        assert isinstance(event["pid"], int) and isinstance(event["tid"], int)
        if event["ph"] == "X":
            assert event["ts"] >= 0 and event["dur"] >= 0 and event["name"] and event["cat"]
    names = {e["pid"]: e["args"]["name"] for e in events if e["name"] == "process_name"}
    assert names == {0: CONTROLLER, 1: "engine 0", 2: "policy rank 0"}
    threads = {(e["pid"], e["tid"]) for e in events if e["name"] == "thread_name"}
    assert {(e["pid"], e["tid"]) for e in events if e["ph"] == "X"} <= threads


def test_each_span_is_there_in_microseconds_with_its_step_and_reason() -> None:
    events = [e for e in trace_events(SPANS) if e["ph"] == "X" and e["tid"] > 0]
    assert len(events) == len(SPANS)
    (wait,) = [event for event in events if event["name"] == "exchange"]
    assert (wait["ts"], wait["dur"], wait["cat"]) == (3.25e6, 0.25e6, "waiting")
    assert wait["args"] == {"step": 1, "waiting for": "pipeline_bubble"}


def test_the_state_of_a_role_has_its_waits_with_their_reasons() -> None:
    states = [e for e in trace_events(SPANS) if e["ph"] == "X" and e["tid"] == 0 and e["pid"] == 2]
    assert [(e["name"], e["ts"] / 1e6, e["dur"] / 1e6) for e in states] == [
        ("waiting: rollouts", 0, 3),
        ("train", 3, 0.25),
        ("waiting: pipeline_bubble", 3.25, 0.25),
        ("train", 3.5, 0.5),
    ]


def test_what_nvml_has_told_is_a_counter_of_the_role() -> None:
    sample = Sample("engine 0", "3", 101.5, power_w=300.0, use=None, memory_gib=70.5, temperature_c=None)
    counters = [event for event in trace_events(SPANS, [sample]) if event["ph"] == "C"]
    assert [(e["pid"], e["name"], e["ts"], e["args"]) for e in counters] == [
        (1, "GPU 3 power, W", 1.5e6, {"value": 300.0}),
        (1, "GPU 3 memory, GiB", 1.5e6, {"value": 70.5}),
    ]


times = st.integers(0, 20).map(float)


@given(st.lists(st.tuples(times, times)))
def test_in_a_lane_spans_are_apart_or_inside_each_other(edges: list[tuple[float, float]]) -> None:
    spans = [Span("engine 0", str(i), min(pair), max(pair)) for i, pair in enumerate(edges)]
    lanes = nested_lanes(spans)
    assert sorted(span.phase for lane in lanes for span in lane) == sorted(span.phase for span in spans)
    for lane in lanes:
        for i, one in enumerate(lane):
            for other in lane[i + 1 :]:
                apart = one.end_s <= other.start_s or other.end_s <= one.start_s
                inside = one.start_s <= other.start_s and other.end_s <= one.end_s
                assert apart or inside


def test_spans_that_nest_take_one_lane() -> None:
    assert [len(lane) for lane in nested_lanes(SPANS[4:])] == [2]
    assert [len(lane) for lane in nested_lanes(SPANS[2:4])] == [1, 1]
