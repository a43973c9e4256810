"""The clock and the spans of one process."""

import subprocess
import sys
import threading
import time

import pytest

from rlstack.telemetry import timeline
from rlstack.telemetry.timeline import Span, now_s, span


@pytest.fixture(autouse=True)
def nothing_left_over():
    timeline.take()
    yield
    timeline.take()


def test_the_clock_is_unix_time_and_never_goes_back():
    before, read, after = time.time(), [now_s() for _ in range(1000)], time.time()
    assert before - 0.1 < read[0] <= read[-1] < after + 0.1
    assert read == sorted(read)


def test_spans_are_taken_once_and_the_inner_one_ends_first():
    with span("train"), span("forward"), span("wait", reason="pipeline_bubble"):
        pass
    taken = timeline.take()
    assert [(s.role, s.phase, s.reason, s.step) for s in taken] == [
        ("controller", "wait", "pipeline_bubble", None),
        ("controller", "forward", None, None),
        ("controller", "train", None, None),
    ]
    inner, middle, outer = taken
    assert outer.start_s <= middle.start_s <= inner.start_s <= inner.end_s <= middle.end_s <= outer.end_s
    assert timeline.take() == []


def test_a_span_that_an_error_ends_is_there():
    with pytest.raises(KeyError), span("train"):
        raise KeyError
    assert [s.phase for s in timeline.take()] == ["train"]


def test_what_goes_on_is_seen_as_if_it_ended_now():
    with span("train"):
        with span("score", role="rewards math"):
            pass
        (going_on,) = timeline.going_on()
        assert (going_on.phase, going_on.start_s < going_on.end_s <= now_s()) == ("train", True)
    assert timeline.going_on() == []
    assert [(s.role, s.phase) for s in timeline.take()] == [
        ("rewards math", "score"),
        ("controller", "train"),
    ]


def test_what_another_role_was_asked_for_goes_on_until_it_is_answered():
    with timeline.asked("engine 0", "generate"):
        assert [(s.role, s.phase) for s in timeline.going_on()] == [("engine 0", "generate")]
        timeline.add([Span("engine 0", "generate", 1.0, 2.0)])
    assert timeline.going_on() == []
    assert timeline.take() == [Span("engine 0", "generate", 1.0, 2.0)]  # what it measured itself, and no more


def test_threads_keep_their_own_spans_apart():
    def work(name):
        for _ in range(200):
            with span(name):
                pass

    threads = [threading.Thread(target=work, args=(str(i),)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    phases = [s.phase for s in timeline.take()]
    assert {name: phases.count(name) for name in set(phases)} == dict.fromkeys("0123", 200)


def test_memory_is_bounded_and_the_oldest_spans_go_first():
    timeline.add(Span("engine 0", str(i), i, i + 1) for i in range(timeline.MAX_SPANS + 5))
    taken = timeline.take()
    assert (len(taken), taken[0].phase) == (timeline.MAX_SPANS, "5")


def test_a_process_has_the_role_that_it_was_told():
    code = "from rlstack.telemetry import timeline as t; t.act_as('engine 1')\n"
    code += "with t.span('generate'): pass\nprint(t.take()[0].role)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "engine 1\n"


def test_a_buffer_that_is_full_drops_the_oldest_and_counts_them():
    buffer = timeline.Buffer(3)
    buffer.add(range(2))
    buffer.add(range(2, 7))
    assert (buffer.take(), buffer.num_dropped) == ([4, 5, 6], 4)
    buffer.add([7])
    assert (buffer.take(), buffer.num_dropped) == ([7], 4)
