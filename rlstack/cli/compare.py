"""`rlstack compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rlstack.cli.exit_status import exit_status
from rlstack.telemetry.axes import Axis

EPILOG = """Examples:\n
  rlstack compare runs/quickstart runs/online\n
  rlstack compare runs/* --out runs/compare.html\n
  rlstack compare runs/quickstart runs/grpo --x time --metric grad_norm --metric policy/entropy"""


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="Folders of runs, ended or going on.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The page; replaced if there.")] = Path(
        "compare.html"
    ),
    metric: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Of metrics.jsonl, to draw instead of the usual ones; may be given several times.",
            show_default=False,
        ),
    ] = None,
    x: Annotated[
        Axis,
        typer.Option(
            help="What metrics are drawn against; reward and accuracy are against step and time anyway."
        ),
    ] = Axis.step,
) -> None:
    """Lay runs over each other: a page of curves, outcomes and the settings that differ.

    The page is one file that opens in a browser without a network. Runs that differ only in run.name and
    run.seed become one curve in a band. Prints the outcomes in short.
    """
    with exit_status():
        from rlstack.telemetry.comparison.compare import compare as write

        write(runs, out, axis=x, metrics=metric or ())
