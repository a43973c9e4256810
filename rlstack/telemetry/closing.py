"""What is still to do when a run has ended."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rlstack.errors import UserCodeError
from rlstack.files import DISK_REMEDIES
from rlstack.telemetry.alarms import StoppedByAlarm
from rlstack.telemetry.log_files import GPUS, TIMELINE
from rlstack.telemetry.logs import ERROR_LOG, write_traceback
from rlstack.telemetry.report import write_outputs
from rlstack.telemetry.rollout_shards import ROLLOUTS
from rlstack.telemetry.rollout_shards import num_bytes as num_rollout_bytes
from rlstack.telemetry.run_record import read_record

# What a report takes, and what it may take of a run's end: seconds, or a share of the run's time. What would
# take longer is left to be asked for.
REPORT_S_PER_SPAN = 7e-5
REPORT_S_PER_BYTE = 2e-8  # of rollouts.jsonl, timeline.jsonl and gpus.jsonl
REPORT_S, REPORT_SHARE = 2.0, 0.02


class Attempts:
    """Writes that are made when a run ends, of which none keeps the next one from being made."""

    def __init__(self, note: Callable[[str], object]) -> None:
        """note: is told what could not be written, in a line each."""
        self._note = note
        self._failed: OSError | None = None

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        """Try what is inside, which writes the file `name`."""
        try:
            yield
        except OSError as error:
            self._note(f"{name} could not be written: {error.strerror or error}")
            self._failed = self._failed or error

    def settle(self) -> None:
        """Raise the first OSError, if there was one."""
        if self._failed is not None:
            raise self._failed


def how_to_go_on(config: Path, *, saved_step: int | None, save_every: int | None) -> str:
    """The line for a run that has broken off.

    config: its config.yaml; saved_step: its newest checkpoint's; save_every: schedule.save_every.
    """
    if saved_step is not None:
        return f"saved up to step {saved_step}; to go on: rlstack train {config} --resume"
    if save_every is None:
        return "there is nothing to go on from: with schedule.save_every = null no checkpoint is written"
    return f"there is nothing to go on from: the first checkpoint is written after step {save_every}"


def explain(error: BaseException, logs: Path) -> None:
    """Add to `error`, which ended a run, where its traceback is, and what to do about a disk that refuses."""
    remedy = next(
        (text for each in _causes(error) if (text := DISK_REMEDIES.get(getattr(each, "errno", None) or 0))),
        None,
    )
    if remedy is not None:
        error.add_note(f"{remedy}, and go on as above")
    try:
        error.add_note(f"the traceback is in {write_traceback(error, logs)}")
    except OSError:
        error.add_note("the traceback could not be written to a file either")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error, what led to it, and what another process raised; each once, circles too."""
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        yield error
        error = getattr(error, "cause", None) or error.__cause__ or error.__context__


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
    paths = [folder / name for name in (TIMELINE, GPUS)]
    num_bytes = num_rollout_bytes(folder / ROLLOUTS)
    num_bytes += sum(path.stat().st_size for path in paths if path.exists())
    report_s = num_spans * REPORT_S_PER_SPAN + num_bytes * REPORT_S_PER_BYTE
    if report_s > max(REPORT_S, REPORT_SHARE * wall_s):
        note(f"for report.html and timeline.json: rlstack report {folder}")
        return
    try:
        write_outputs(read_record(folder))
    except Exception as error:
        note(f"report.html could not be written: {error}")
