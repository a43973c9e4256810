"""From folders of runs to the page that compares them, and to a table on the terminal."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console as RichConsole
from rich.console import JustifyMethod
from rich.table import Table

from rlstack.errors import ConfigError
from rlstack.telemetry.axes import Axis
from rlstack.telemetry.comparison.page import write_comparison
from rlstack.telemetry.comparison.runs import ComparedRun, read_runs
from rlstack.telemetry.comparison.tables import IN_SHORT, outcome_rows

FILE_WIDTH = 200  # a file has room for all columns
NAME_WIDTH = 16  # of a run's name where the terminal is narrow


def compare(folders: Sequence[Path], out: Path, *, axis: Axis, metrics: Sequence[str]) -> None:
    """Write the page to `out`, and print the outcomes and where it is.

    Raises:
        ConfigError: a folder is not a run's, no run has one of the metrics, or the page cannot be written.
    """
    runs = read_runs(folders)
    _check(runs, metrics)
    try:
        write_comparison(runs, out, axis=axis, metrics=metrics)
    except OSError as error:
        raise ConfigError(f"--out {out}: {error.strerror}; give a file to write to") from None
    console = RichConsole(highlight=False, markup=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = FILE_WIDTH
    console.print(_in_short(runs), soft_wrap=False)
    console.print(out)


def _check(runs: Sequence[ComparedRun], metrics: Sequence[str]) -> None:
    rows = [row for run in runs for row in run.log.steps]
    known = {name for row in rows for name, value in row.items() if value is not None}
    for metric in metrics:
        if metric not in known:
            near = difflib.get_close_matches(metric, sorted(known), n=3, cutoff=0.4)
            hint = f"; these runs have {', '.join(near)}" if near else ""
            raise ConfigError(f"--metric {metric}: no step of these runs has such a number{hint}")


def _in_short(runs: Sequence[ComparedRun]) -> Table:
    rows = list(outcome_rows(runs))
    longest = max(len(row[0]) for row in rows)
    table = Table(box=None, pad_edge=False)
    for label, column in IN_SHORT.items():
        side: JustifyMethod = "left" if column < 2 else "right"
        width = min(longest, NAME_WIDTH) if column == 0 else None
        table.add_column(
            label,
            justify=side,
            no_wrap=column > 0,
            overflow="fold" if column == 0 else "ellipsis",
            min_width=width,
        )
    for row in rows:
        table.add_row(*(row[column] for column in IN_SHORT.values()))
    return table
