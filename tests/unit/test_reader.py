"""Results of streamed calls, and what becomes of them when a call fails, stalls or is not needed any more."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError

import pytest

from rlstack.orchestration.reader import Reader

LIMIT_S = 10.0


def test_results_come_as_they_are_yielded_call_after_call() -> None:
    go_on = threading.Event()

    def first() -> Iterator[list[tuple[int, str]]]:
        yield [(1, "b")]
        go_on.wait(LIMIT_S)
        yield [(0, "a"), (2, "c")]

    reader = Reader("engine 0")
    early = reader.read(first, 3)
    late = reader.read(lambda: [[(0, "d")]], 1)
    assert early[1].result(LIMIT_S) == "b"
    assert not early[0].done() and not late[0].done()
    go_on.set()
    assert [future.result(LIMIT_S) for future in early + late] == ["a", "b", "c", "d"]
    reader.close()


def test_after_a_failure_all_that_is_still_to_come_fails_with_it() -> None:
    def failing() -> Iterator[list[tuple[int, str]]]:
        yield [(0, "a")]
        raise RuntimeError("engine 0 died")

    reader = Reader("engine 0")
    results = reader.read(failing, 2)
    later = reader.read(lambda: [[(0, "never")]], 1)
    assert results[0].result(LIMIT_S) == "a"
    for future in (results[1], *later, *reader.read(lambda: [[(0, "never")]], 1)):
        with pytest.raises(RuntimeError, match="engine 0 died"):
            future.result(LIMIT_S)
    reader.close()


def test_a_call_that_ends_too_soon_is_a_failure() -> None:
    reader = Reader("engine 0")
    (one, other) = reader.read(lambda: [[(0, "a")]], 2)
    assert one.result(LIMIT_S) == "a"
    with pytest.raises(RuntimeError, match="without all of its results"):
        other.result(LIMIT_S)
    reader.close()


def test_closing_ends_a_call_under_way_and_those_behind_it() -> None:
    def endless() -> Iterator[list[tuple[int, str]]]:
        while reader.is_open():
            time.sleep(0.01)
            yield []

    reader = Reader("engine 0")
    futures = reader.read(endless, 1) + reader.read(lambda: [[(0, "never")]], 1)
    started = time.monotonic()
    reader.close()
    assert time.monotonic() - started < LIMIT_S
    for future in futures:
        with pytest.raises(CancelledError):
            future.result(LIMIT_S)
