"""The faults that were tried, in files, so that a series of them can be gone on with."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.faults.faults import Fault
from tests.faults.invariants import Left, problems
from tests.faults.tiny_run import NAME, read_left, run_with, schedule

UNDISTURBED = "undisturbed"
RESULT = "result.json"

Row = dict[str, Any]


class UndisturbedError(RuntimeError):
    """The run that the others are compared with is not what it should be."""


def undisturbed_run(runs: Path, settings: Sequence[str] = ()) -> Left:
    """The run with `settings` and without a fault, in a folder below `runs`; made now unless it is there.

    Raises UndisturbedError if something is wrong with it.
    """
    folder = runs / "-".join((UNDISTURBED, *settings))
    result = _read(folder)
    if result is None:
        left = _run_anew(None, folder, settings)
        wrong = problems(left, left, schedule=schedule(), fault=None)
        if wrong:
            raise UndisturbedError(f"{folder}: {'; '.join(wrong)}")
        result = {"seconds": left.ended_s}
        _write(folder, result)
    return read_left(folder / NAME, ended_s=result["seconds"])


def tried(fault: Fault, runs: Path) -> Row:
    """What came of `fault`, tried below `runs`; one that was survived there before is not tried again.

    Raises UndisturbedError as undisturbed_run.
    """
    folder = runs / fault.name
    result = _read(folder)
    if result is None or not result["survived"]:
        undisturbed = undisturbed_run(runs, fault.needs)
        left = _run_anew(fault, folder, fault.needs)
        wrong = problems(left, undisturbed, schedule=schedule(), fault=fault)
        result = as_row(fault, left, wrong, undisturbed_s=undisturbed.ended_s)
        _write(folder, result)
    return result


def as_row(fault: Fault, left: Left, wrong: list[str], *, undisturbed_s: float | None) -> Row:
    """A line of the table. seconds_lost: beyond what the undisturbed run took."""
    seconds, usual_s = left.ended_s, undisturbed_s
    lost_s = None if seconds is None or usual_s is None else round(seconds - usual_s, 1)
    return {
        "role": fault.role.value,
        "phase": fault.phase.value,
        "action": fault.action.value,
        "survived": not wrong,
        "seconds_lost": lost_s,
        "roles_replaced": sum(not row.get("failed") for row in left.restarts),
        "taken_up_at": list(left.summary.get("resumed", ())),
        "problems": "; ".join(wrong),
    }


def _run_anew(fault: Fault | None, folder: Path, settings: Sequence[str]) -> Left:
    shutil.rmtree(folder, ignore_errors=True)
    return run_with(fault, folder, settings)


def _read(folder: Path) -> Row | None:
    path = folder / RESULT
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _write(folder: Path, result: Mapping[str, Any]) -> None:
    (folder / RESULT).write_text(json.dumps(result) + "\n", encoding="utf-8")
