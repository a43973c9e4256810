"""`rlstack report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rlstack.cli.exit_status import exit_status

EPILOG = """Examples:\n
  rlstack report runs/quickstart\n
  rlstack report runs/*"""


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="Folders of runs, ended or going on.")],
) -> None:
    """Write report.html and timeline.json into the folder of each RUN, from the other files there.

    report.html is one file that opens in a browser without a network: the run's course, its rollouts, where
    the time of every process went, its settings. timeline.json is for ui.perfetto.dev. A run writes both
    when it ends. It takes about 0.1 ms and 1 KB of memory for each span of timeline.jsonl.
    """
    with exit_status():
        from rlstack.telemetry.report import write_outputs
        from rlstack.telemetry.run_record import check_run, read_record

        for run in runs:
            check_run(run)
        for run in runs:
            for path in write_outputs(read_record(run)):
                typer.echo(path)
