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
    when it ends.
    """
    with exit_status():
        from rlstack.telemetry.report import write_outputs
        from rlstack.telemetry.run_record import read_record

        records = [read_record(run) for run in runs]
        for record in records:
            for path in write_outputs(record):
                typer.echo(path)
