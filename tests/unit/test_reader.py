"""Results of streamed calls, and what becomes of them when a call fails, stalls or is not needed any more."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future

from rlstack.orchestration.reader import Reader

LIMIT_S = 10.0
Texts = list[Future[str]]


def futures(count: int) -> Texts:
    return [Future() for _ in range(count)]


def wait_for_failure(reader: Reader) -> BaseException | None:
    deadline = time.monotonic() + LIMIT_S
    while reader.failure is None and time.monotonic() < deadline:
        time.sleep(0.001)
    return reader.failure


def test_results_come_as_they_are_yielded_call_after_call() -> None:
    go_on = threading.Event()

    def first() -> Iterator[list[tuple[int, str]]]:
        yield [(1, "b")]
        go_on.wait(LIMIT_S)
        yield [(0, "a"), (2, "c")]

    reader, early, late = Reader("engine 0"), futures(3), futures(1)
    reader.read(first, early)
    reader.read(lambda: [[(0, "d")]], late)
    assert early[1].result(LIMIT_S) == "b"
    assert not early[0].done() and not late[0].done()
    go_on.set()
    assert [future.result(LIMIT_S) for future in early + late] == ["a", "b", "c", "d"]
    assert reader.failure is None
    reader.close()


def test_after_a_failure_what_is_not_there_stays_open_for_another_reader() -> None:
    def failing() -> Iterator[list[tuple[int, str]]]:
        yield [(0, "a")]
        raise RuntimeError("engine 0 died")

    reader, results, later = Reader("engine 0"), futures(2), futures(1)
    reader.read(failing, results)
    reader.read(lambda: [[(0, "never")]], later)
    assert str(wait_for_failure(reader)) == "engine 0 died"
    reader.close()
    assert results[0].result(0) == "a"
    assert not results[1].done() and not later[0].done()
    another = Reader("engine 0")
    another.read(lambda: [[(0, "b")]], results[1:])
    assert results[1].result(LIMIT_S) == "b"
    another.close()


def test_a_call_that_ends_too_soon_is_a_failure() -> None:
    reader, (one, other) = Reader("engine 0"), futures(2)
    reader.read(lambda: [[(0, "a")]], [one, other])
    assert one.result(LIMIT_S) == "a"
    assert "without all of its results" in str(wait_for_failure(reader))
    assert not other.done()
    reader.close()


def test_closing_ends_a_call_under_way_and_those_behind_it() -> None:
    def endless() -> Iterator[list[tuple[int, str]]]:
        while True:
            time.sleep(0.01)
            yield [] if reader.is_open() else [(0, "late")]

    reader, results = Reader("engine 0"), futures(2)
    reader.read(endless, results[:1])
    reader.read(lambda: [[(0, "never")]], results[1:])
    started = time.monotonic()
    reader.close()
    assert time.monotonic() - started < LIMIT_S
    assert not any(future.done() for future in results)
    assert reader.failure is None
