"""Kill and stall the processes of tiny runs, and check what is left: one run for each fault of the table.

    python -m tests.faults --only "kill-engine*" --out benchmarks/results/faults.json

Faults that were survived below the same --runs are not tried again. Exit status 1 if one was not survived.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from benchmarks.report import write
from tests.faults.faults import FAULTS, Fault
from tests.faults.results import Row, tried


def main() -> int:
    arguments = parse()
    faults = [fault for fault in FAULTS if any(fnmatch(fault.name, only) for only in arguments.only)]
    if not faults:
        print(f"no fault is called {' or '.join(arguments.only)}; --list prints the names", file=sys.stderr)
        return 2
    if arguments.list:
        print(*(fault.name for fault in faults), sep="\n")
        return 0
    rows = try_all(faults, arguments.runs.absolute())
    sys.argv[:1] = ["-m", "tests.faults"]  # the command that the file names can be given again
    write(rows, arguments.out, title="faults")
    survived = sum(row["survived"] for row in rows)
    print(f"{survived} of {len(rows)} faults survived")
    return 0 if survived == len(rows) else 1


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--only", nargs="+", default=["*"], metavar="PATTERN", help="names, * stands for anything"
    )
    parser.add_argument("--list", action="store_true", help="print the names and try nothing")
    parser.add_argument("--runs", type=Path, default=Path("runs/faults"), help="folder to keep the runs in")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    return parser.parse_args()


def try_all(faults: Sequence[Fault], runs: Path) -> list[Row]:
    """One row for each fault, in order; what is not survived is said at once."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    rows = []
    with Progress(*columns, speed_estimate_period=3600) as progress:
        task = progress.add_task("", total=len(faults))
        for fault in faults:
            progress.update(task, description=fault.name)
            row = tried(fault, runs)
            if not row["survived"]:
                say = f"{fault.name}: {row['problems']}\n  its run: {runs / fault.name}"
                progress.console.print(say, markup=False, highlight=False, soft_wrap=True)
            rows.append(row)
            progress.advance(task)
    return rows


if __name__ == "__main__":
    sys.exit(main())
