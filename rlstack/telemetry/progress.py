"""How far a long command is: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from rlstack.telemetry.clock import clock

LINE_EVERY_S = 15.0  # without a terminal


class Progress:
    """A context; counts `total` things called `noun`, of which `done` were there before."""

    def __init__(self, noun: str, *, total: int, done: int = 0) -> None:
        self._noun, self._total, self._done, self._done_before = noun, total, done, done
        self._console = Console(highlight=False, markup=False, soft_wrap=True)
        self._bar = RichProgress(
            TextColumn(f"{noun} {{task.fields[rate]}}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("", total=total, completed=done, rate="")
        self._started = self._last_line = time.perf_counter()

    def advance(self, count: int) -> None:
        """`count` more are done."""
        self._done += count
        elapsed_s = time.perf_counter() - self._started
        rate = (self._done - self._done_before) / elapsed_s
        self._bar.update(self._task, advance=count, rate=f"{rate:.1f}/s")
        is_due = time.perf_counter() - self._last_line >= LINE_EVERY_S or self._done == self._total
        if not self._console.is_terminal and is_due:
            self._last_line = time.perf_counter()
            eta = clock((self._total - self._done) / rate) if rate > 0 else "unknown"
            self._console.print(f"{self._noun} {self._done}/{self._total}  {rate:.1f}/s  ETA {eta}")

    def __enter__(self) -> Progress:
        self._started = self._last_line = time.perf_counter()
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
