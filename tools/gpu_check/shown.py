"""A result as plain text: a table of its parts, and the last lines of those that failed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gpu_check.parts import FAILED, TIMED_OUT

HEAD = ("part", "outcome", "seconds", "what")


def text_of(result: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """The whole of it, in lines."""
    gpus = ", ".join(result["machine"]["gpus"]) or "no GPU"
    kind = "dry run" if result["dry_run"] else "check"
    lines = [f"{result['profile']} {kind} of {result['date']} on {gpus}", ""]
    cells = [HEAD, *(_cells(row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines += ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in cells]
    for row in rows:
        if row["outcome"] in (FAILED, TIMED_OUT):
            lines += ["", f"{row['part']}: {row['outcome']}: {row['reason']}"]
            lines += [f"  | {line}" for line in row["last_lines"]]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    seconds = "" if row["seconds"] is None else f"{row['seconds']:.1f}"
    return row["part"], row["outcome"], seconds, row["reason"] or _figure(row)


def _figure(row: Mapping[str, Any]) -> str:
    """The most telling figure of a part that passed."""
    details = row["details"]
    if "gib_per_s" in details:
        return f"{details['gib_per_s']:.1f} GiB/s"
    if "passed" in details:
        return f"{details['passed']} tests passed, {details['skipped']} skipped"
    if "reward_last20" in details:
        return f"reward {details['reward_first20']:.2f} -> {details['reward_last20']:.2f}"
    return str(details.get("file", ""))
