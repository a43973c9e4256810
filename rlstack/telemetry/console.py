"""The terminal: one line per step, start-up phases with their time, a closing table; a live panel below."""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console as RichConsole
from rich.live import Live
from rich.table import Table

from rlstack.config.alarms import AlarmAction
from rlstack.errors import for_terminal
from rlstack.telemetry.alarms import Raised
from rlstack.telemetry.clock import clock
from rlstack.telemetry.live_panel import SMOOTHED_STEPS, LivePanel

REDRAWN_PER_S = 4  # the live panel


class Console:
    """Lines, and between open() and close() the live panel below them; plain lines alone where the output is
    not a terminal, or TTY_INTERACTIVE=0 or TERM=dumb says that it is not one to draw on.
    """

    def __init__(self, num_steps: int) -> None:
        self._out = RichConsole(highlight=False, markup=False, soft_wrap=True)
        self._num_steps = num_steps
        self._rewards: deque[float] = deque(maxlen=SMOOTHED_STEPS)
        self._seconds: deque[float] = deque(maxlen=SMOOTHED_STEPS)
        self._panel = LivePanel(num_steps)
        self._live: Live | None = None

    def open(self) -> None:
        """Draw the live panel from here on."""
        if self._out.is_interactive:
            self._live = Live(
                self._panel, console=self._out, transient=True, refresh_per_second=REDRAWN_PER_S
            )
            self._live.start()

    def close(self) -> None:
        """Take the panel away; what follows are lines."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    @contextmanager
    def phase(self, text: str) -> Iterator[None]:
        """Show that `text` is going on, and then how long it took."""
        started = time.perf_counter()
        if self._live is not None:
            with self._panel.during(text):
                yield
        elif self._out.is_interactive:
            with self._out.status(text):
                yield
        else:
            self.note(f"{text} ...")
            yield
        self.note(f"{text}: {time.perf_counter() - started:.1f} s")

    def note(self, text: str) -> None:
        """One line outside the table of steps."""
        self._out.print(for_terminal(text))

    def evaluation(self, metrics: Mapping[str, Any]) -> None:
        """One line for an evaluation outside the steps."""
        self._panel.add(metrics)
        self.note("held-out " + ", ".join(_held_out(metrics)))

    def step(self, metrics: Mapping[str, Any]) -> None:
        """One line for a step of metrics.jsonl."""
        self._panel.add(metrics)
        self._seconds.append(metrics["time/step_s"])
        if "reward/mean" in metrics:
            self._rewards.append(metrics["reward/mean"])
        width = len(str(self._num_steps))
        parts = [f"step {metrics['step']:>{width}}/{self._num_steps}", *self._columns(metrics)]
        left_s = (self._num_steps - metrics["step"]) * statistics.fmean(self._seconds)
        parts += [f"{metrics['time/step_s']:.2f} s", f"ETA {clock(left_s)}", *_events(metrics)]
        self._out.print("  ".join(parts))

    def go_on_after(self, steps: Sequence[Mapping[str, Any]]) -> None:
        """Let the means of the lines to come be over these rows of metrics.jsonl too."""
        last = steps[-SMOOTHED_STEPS:]
        self._seconds = deque((row["time/step_s"] for row in last), SMOOTHED_STEPS)
        rewards = [row["reward/mean"] for row in steps if "reward/mean" in row]
        self._rewards = deque(rewards, SMOOTHED_STEPS)
        self._panel.go_on_after(steps)

    def alarm(self, raised: Raised) -> None:
        """One line for an alarm."""
        factor = f" x {raised.lr_factor:g}" if raised.action is AlarmAction.lower_lr else ""
        self.note(f"ALARM {raised.alarm} ({raised.action.value}{factor}): {raised.reason}")

    def restart(self, restart: Mapping[str, Any]) -> None:
        """One line for a role that was replaced, or could not be: a row of restarts.jsonl."""
        role, seconds = restart["role"], f"{restart['seconds']:.1f} s"
        if restart["failed"]:
            self.note(f"{role} could not be replaced: {restart['error']} (after {seconds})")
            return
        where = f" on {restart['moved_to']}" if restart["moved_to"] else ""
        self.note(f"{role} was replaced{where} in {seconds}: {restart['reason']}")

    def interval(self, decision: Mapping[str, Any]) -> None:
        """One line for a sync interval that has changed: a row of intervals.jsonl."""
        if decision["before"] not in (None, decision["interval"]):
            change = f"{decision['before']} -> {decision['interval']}"
            self.note(f"s {change} from version {decision['version']} on: {decision['reason']}")

    def _columns(self, metrics: Mapping[str, Any]) -> Iterator[str]:
        if "reward/mean" in metrics:
            yield f"reward {metrics['reward/mean']:.3f} ({statistics.fmean(self._rewards):.3f})"
        if "pairs/formed" in metrics:
            yield f"pairs {metrics['pairs/formed']:>2}"
        for name, label, form in (
            ("policy/entropy", "entropy", ".3f"),
            ("rollout/length_mean", "length", ".1f"),
            ("mismatch/logprob_abs_max", "mismatch", ".0e"),
        ):
            if name in metrics:
                yield f"{label} {metrics[name]:{form}}"

    def summary(self, summary: Mapping[str, Any], run_path: Path) -> None:
        """The closing table, and where the files are."""
        table = Table(show_header=False, box=None, pad_edge=False)
        for label, text in _summary_rows(summary):
            table.add_row(label, text)
        self._out.print()
        self._out.print(table)
        self._out.print(f"files: {run_path}")


def _events(metrics: Mapping[str, Any]) -> Iterator[str]:
    if "sync/pause_s" in metrics:
        yield f"sync v{metrics['sync/version']} {metrics['sync/pause_s']:.2f} s"
    yield from _held_out(metrics)
    for name in ("reward/timeouts", "reward/errors", "reward/truncated"):
        if metrics.get(name):
            yield f"{name} {metrics[name]}"


def _held_out(metrics: Mapping[str, Any]) -> Iterator[str]:
    """The accuracy, and the reward of each task that has no verdicts."""
    version = metrics.get("eval/version")
    if metrics.get("eval/accuracy") is not None:
        yield f"accuracy v{version} {metrics['eval/accuracy']:.3f}"
    for name, reward in metrics.items():
        task = name.removeprefix("eval/").removesuffix("/reward")
        if name == f"eval/{task}/reward" and f"eval/{task}/accuracy" not in metrics and reward is not None:
            yield f"{task} reward v{version} {reward:.3f}"


def _summary_rows(summary: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "run", f"{summary['status']} after {summary['steps']} steps in {clock(summary['wall_s'])}"
    yield "reward, first and last 20 steps", _change(summary["reward_first20"], summary["reward_last20"])
    yield "held-out accuracy", _change(summary["accuracy_initial"], summary["accuracy_final"])
    if summary["best"] is not None:
        yield "best version", f"{summary['best']['version']} ({summary['best']['value']:.4g})"
    yield "seconds", "  ".join(f"{name} {spent:.0f}" for name, spent in summary["time_s"].items())
    rates = [f"{name} {n} ({n / summary['wall_s']:.0f}/s)" for name, n in summary["tokens"].items()]
    yield "tokens", "  ".join(rates)
    mismatch = summary["mismatch_logprob_abs_max"]
    yield "syncs", f"{summary['syncs']}"
    yield "largest logprob mismatch", "not measured" if mismatch is None else f"{mismatch:.1e}"


def _change(before: float | None, after: float | None) -> str:
    return " -> ".join("not measured" if value is None else f"{value:.3f}" for value in (before, after))
