"""What is still to do when a run has ended."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rlstack.errors import UserCodeError
from rlstack.telemetry.alarms import StoppedByAlarm
from rlstack.telemetry.log_files import ROLLOUTS
from rlstack.telemetry.logs import ERROR_LOG
from rlstack.telemetry.report import write_outputs
from rlstack.telemetry.run_record import read_record

# What a report takes, and what it may take of a run's end: seconds, or a share of the run's time. What would
# take longer is left to be asked for.
REPORT_S_PER_SPAN = 7e-5
REPORT_S_PER_BYTE = 2e-8  # of rollouts.jsonl
REPORT_S, REPORT_SHARE = 2.0, 0.02


def status_of(kind: type[BaseException] | None) -> str:
    """How a run has ended that an error of this `kind` ends: `status` of summary.json."""
    if kind is None:
        return "completed"
    if issubclass(kind, StoppedByAlarm):
        return "stopped"
    return "interrupted" if issubclass(kind, KeyboardInterrupt) else "failed"


def error_of(error: BaseException | None, status: str) -> dict[str, Any] | None:
    """`error` of summary.json: what ended the run, None for one that has completed or was interrupted.

    file, line: of the user's own code where it was raised there. log: the traceback's file, in the run's
    folder; an alarm leaves none.
    """
    if error is None or status in ("completed", "interrupted"):
        return None
    of_user = error if isinstance(error, UserCodeError) else None
    return {
        "type": type(error).__name__,
        "message": str(error),
        "file": of_user.file if of_user else None,
        "line": of_user.line if of_user else None,
        "log": f"logs/{ERROR_LOG}" if status == "failed" else None,
    }


def report(folder: Path, *, num_spans: int, wall_s: float, note: Callable[[str], object]) -> None:
    """Write report.html and timeline.json of the run in `folder` if that takes little of its time.

    What goes wrong here is noted and no more: the run is over, and its files are all there.
    """
    rollouts = folder / ROLLOUTS
    num_bytes = rollouts.stat().st_size if rollouts.exists() else 0
    report_s = num_spans * REPORT_S_PER_SPAN + num_bytes * REPORT_S_PER_BYTE
    if report_s > max(REPORT_S, REPORT_SHARE * wall_s):
        note(f"for report.html and timeline.json: rlstack report {folder}")
        return
    try:
        write_outputs(read_record(folder))
    except Exception as error:
        note(f"report.html could not be written: {error}")
