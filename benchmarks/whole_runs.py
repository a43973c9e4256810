"""Whole training runs for benchmarks: each in a process of its own, those that have finished not repeated."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rlstack.tuning.measure import MeasuredRun, measured_run
from rlstack.tuning.training_process import is_finished, last_words, train_in_process

CONFIG = Path(__file__).resolve().parent.parent / "configs" / "quickstart.yaml"

# The policy stays what it is, so that all runs sample answers of the same lengths.
STILL = ("optimizer.lr=1e-12",)


def finished_run(name: str, settings: Sequence[str], folder: Path) -> Path:
    """The folder of the quickstart's run with `settings`; made now unless it is there already."""
    overrides = [f"run.dir={folder}", f"run.name={name}", *settings]
    if not is_finished(CONFIG, overrides):
        folder.mkdir(parents=True, exist_ok=True)
        log, started = folder / f"{name}.log", time.monotonic()
        print(f"{name} ...", end=" ", flush=True, file=sys.stderr)
        status = train_in_process(CONFIG, overrides, log=log)
        print(f"{time.monotonic() - started:.0f} s", file=sys.stderr)
        if status != 0:
            raise SystemExit(f"{name}: {last_words(log)}\n  its log: {log}")
    return folder / name


def measure(name: str, settings: Sequence[str], folder: Path) -> MeasuredRun:
    """What that run took."""
    return measured_run(finished_run(name, settings, folder))
