"""Parts of a check, and how the end of one is judged. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

PASSED, FAILED, TIMED_OUT, SKIPPED, NOT_RUN = "passed", "failed", "timed out", "skipped", "not run"
NUM_LAST_LINES = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One command, run by the check's Python in the repository's root.

    shows: what its passing shows, for the support table.
    command: arguments of Python; {out} stands for the folder of results, {workers} for a number of processes.
    num_gpus: without so many the part is skipped.
    dry: its arguments in a dry run, on the CPU; None: a dry run skips it.
    """

    name: str
    shows: str
    command: tuple[str, ...]
    limit_s: float
    num_gpus: int = 1
    dry: tuple[str, ...] | None = None


class Ending(NamedTuple):
    """How a part's process ended. status: None where it was stopped at its limit."""

    status: int | None
    seconds: float
    limit_s: float
    last_lines: Sequence[str]
    details: Mapping[str, Any]


def reason_to_skip(part: Part, *, num_gpus: int, dry_run: bool) -> str | None:
    """Why `part` cannot run on this machine; None: it can."""
    if dry_run:
        return None if part.dry is not None else "a dry run has no GPU, and this part has no path on the CPU"
    if num_gpus < part.num_gpus:
        return f"it needs {part.num_gpus} GPU{'s' * (part.num_gpus > 1)}, and CUDA finds {num_gpus}"
    return None


def judge(part: Part, ending: Ending, *, dry_run: bool) -> tuple[str, str]:
    """The outcome of a part that was started, and the reason; '' where it passed."""
    if ending.status is None:
        return TIMED_OUT, f"stopped after {ending.limit_s:.0f} s"
    if ending.status != 0:
        return FAILED, f"exit status {ending.status}"
    if ending.details.get("passed") == 0:
        return FAILED, "none of its tests ran"
    if not dry_run and ending.details.get("cuda") is not True:
        return FAILED, "it ran without CUDA"
    return PASSED, ""


def row_of(part: Part, *, outcome: str, reason: str, command: str, ending: Ending | None) -> dict[str, Any]:
    """A row of the result file; last lines only of what has not passed."""
    row = {
        "part": part.name,
        "outcome": outcome,
        "reason": reason,
        "shows": part.shows,
        "num_gpus": part.num_gpus,
        "command": command,
        "limit_s": part.limit_s,
        "seconds": None,
        "details": {},
        "last_lines": [],
    }
    if ending is not None:
        row |= {"seconds": round(ending.seconds, 1), "limit_s": round(ending.limit_s, 1)}
        row["details"] = dict(ending.details)
        row["last_lines"] = [] if outcome == PASSED else list(ending.last_lines)
    return row
