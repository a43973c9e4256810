"""What stands below the lines of a run's steps on a terminal: how far, how good, who waits for whom."""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress_bar import ProgressBar
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from rlstack.telemetry.clock import clock
from rlstack.telemetry.timeline import CONTROLLER, Span, going_on, now_s

Row = Mapping[str, Any]

SMOOTHED_STEPS = 10  # of the seconds per step behind the ETA, and of the shares of time
CURVE_STEPS = 60  # of the small curves, where there is room
FIGURE_WIDTH = 24  # of a figure without its curve
WIDE = 70  # a terminal with room for two figures in a line
BARS = "▁▂▃▄▅▆▇█"
# The step's figures: metric, label, format.
FIGURES = (
    ("reward/mean", "reward", ".3f"),
    ("policy/entropy", "entropy", ".3f"),
    ("rollout/length_mean", "length", ".1f"),
    ("pairs/yield", "pair yield", ".0%"),
    ("mismatch/logprob_abs_max", "mismatch", ".0e"),
    ("drift/logprob_abs_mean", "drift", ".1e"),
)
KINDS = {"policy": "policy", "engine": "engines", "reward": "rewards"}  # as shares of time name them


class LivePanel:
    """Rich draws it again and again, so that the seconds go on; the rows are those of metrics.jsonl."""

    def __init__(self, num_steps: int, *, spans: Callable[[], Sequence[Span]] = going_on) -> None:
        """spans: what goes on at the moment."""
        self._num_steps = num_steps
        self._spans = spans
        self._rows: deque[Row] = deque(maxlen=CURVE_STEPS)
        self._started_s = now_s()
        self._evaluation: Row | None = None
        self._doing: tuple[str, float] | None = None  # and since when

    def add(self, row: Row) -> None:
        """Take in the row of a step, or an evaluation's metrics without a step."""
        if "step" in row:
            self._rows.append(row)
        if row.get("eval/accuracy") is not None:
            self._evaluation = row

    def go_on_after(self, rows: Sequence[Row]) -> None:
        """Be where a run is that is taken up after these rows."""
        self._rows = deque(rows, maxlen=CURVE_STEPS)

    @contextmanager
    def during(self, text: str) -> Iterator[None]:
        """Show `text` and its seconds instead of what goes on at the moment."""
        self._doing = (text, now_s())
        try:
            yield
        finally:
            self._doing = None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        yield Rule(style="dim")
        is_wide = options.max_width >= WIDE
        yield self._progress() if is_wide else _in_one_line("  ".join(self._texts()))
        if self._rows:
            columns = 2 if is_wide else 1
            num_bars = max(8, min(CURVE_STEPS, options.max_width // columns - FIGURE_WIDTH))
            yield self._figures(columns=columns, num_bars=num_bars)
            yield _in_one_line(share_line(mean_shares(self._last_rows())), "dim")
        yield _in_one_line(self._at_the_moment())

    def _at_the_moment(self) -> str:
        if (doing := self._doing) is not None:
            return f"{doing[0]}, {now_s() - doing[1]:.0f} s"
        return moment(self._spans(), now_s())

    def _progress(self) -> Table:
        first, *others = self._texts()
        line = Table.grid(padding=(0, 2, 0, 0), expand=True)
        line.add_column(no_wrap=True)
        line.add_column(ratio=1)
        for _ in others:
            line.add_column(no_wrap=True)
        line.add_row(
            first,
            ProgressBar(total=max(self._num_steps, 1), completed=self._step, complete_style="cyan"),
            *others,
        )
        return line

    def _texts(self) -> list[str]:
        texts = [f"step {self._step}/{self._num_steps}"]
        if self._rows:
            step_s = statistics.fmean(row["time/step_s"] for row in self._last_rows())
            texts += [f"{step_s:.2f} s per step", f"ETA {clock(step_s * (self._num_steps - self._step))}"]
        return [*texts, f"{clock(now_s() - self._started_s)} so far"]

    @property
    def _step(self) -> int:
        return int(self._rows[-1]["step"]) if self._rows else 0

    def _last_rows(self) -> list[Row]:
        return list(self._rows)[-SMOOTHED_STEPS:]

    def _figures(self, *, columns: int, num_bars: int) -> Table:
        """So many figures in a line, each with its course."""
        cells = list(self._cells(num_bars))
        grid = Table.grid(padding=(0, 2, 0, 0))
        for start in range(0, len(cells), columns):
            grid.add_row(*(text for cell in cells[start : start + columns] for text in cell))
        return grid

    def _cells(self, num_bars: int) -> Iterator[tuple[Text, Text, Text]]:
        for name, label, form in FIGURES:
            values = [row[name] for row in self._rows if row.get(name) is not None]
            if values:
                yield (
                    Text(label, "dim"),
                    Text(f"{values[-1]:{form}}", "bold"),
                    Text(curve(values[-num_bars:]), "cyan"),
                )
        if self._evaluation is not None:
            accuracy, error = self._evaluation["eval/accuracy"], self._evaluation.get("eval/accuracy_stderr")
            within = f" ± {error:.3f}" if error is not None else ""
            text = Text(f"{accuracy:.3f}{within}", "bold")
            yield Text("accuracy", "dim"), text, Text(f"held out, version {self._evaluation['eval/version']}")


def curve(values: Sequence[float]) -> str:
    """The values as bars between the least and the greatest; a dot where one is not finite."""
    finite = [value for value in values if math.isfinite(value)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 0.0)
    spread = (high - low) or 1.0
    return "".join(
        BARS[int((value - low) / spread * (len(BARS) - 1) + 0.5)] if math.isfinite(value) else "·"
        for value in values
    )


def mean_shares(rows: Sequence[Row]) -> dict[str, float]:
    """Of busy/*, idle/* and wait/* the mean over `rows`; 0 in those without."""
    names = {name for row in rows for name in row if name.startswith(("busy/", "idle/", "wait/"))}
    return {name: statistics.fmean(row.get(name, 0.0) for row in rows) for name in sorted(names)}


def share_line(shares: Mapping[str, float]) -> str:
    """Who was at work for how much of the time, and what the policy's ranks waited for."""
    busy = [
        f"{label} {shares[f'busy/{kind}']:.0%}" for kind, label in KINDS.items() if f"busy/{kind}" in shares
    ]
    waits = [
        (share, name.removeprefix("wait/")) for name, share in shares.items() if name.startswith("wait/")
    ]
    reasons = [f"{name.replace('_', ' ')} {share:.0%}" for share, name in sorted(waits, reverse=True)]
    reasons = [text for text in reasons if not text.endswith(" 0%")]
    waiting = f"; the policy waits for {', '.join(reasons)}" if reasons else ""
    return f"at work: {', '.join(busy)}{waiting}" if busy else ""


def moment(spans: Iterable[Span], now: float) -> str:
    """What the controller waits for at the moment, since when, and who is at work."""
    ordered = sorted(spans, key=lambda span: span.start_s)
    waits = [span for span in ordered if span.role == CONTROLLER and span.reason is not None]
    at_work = {span.role: span.phase for span in ordered if span.role != CONTROLLER and span.reason is None}
    parts = []
    if waits:
        last = waits[-1]
        parts.append(f"the loop waits for {str(last.reason).replace('_', ' ')}, {now - last.start_s:.0f} s")
    if at_work:
        named = [f"{role}: {phase.replace('_', ' ')}" for role, phase in sorted(at_work.items())]
        more = f" and {len(named) - 3} more" if len(named) > 3 else ""
        parts.append(", ".join(named[:3]) + more)
    return "; ".join(parts)


def _in_one_line(text: str, style: str = "") -> Text:
    return Text(text, style, overflow="ellipsis", no_wrap=True)
