"""The command line. Nothing heavy is imported before a command runs, so that --help answers at once."""

from __future__ import annotations

import io
import logging
import os
import sys
from typing import Annotated

import typer

from rlstack.cli import (
    compare,
    doctor,
    evaluate,
    export,
    judge,
    launch,
    plan,
    plan_transfer,
    report,
    score,
    train,
    tune,
)
from rlstack.config.threads import unbind_threads
from rlstack.errors import for_terminal
from rlstack.files import compile_privately
from rlstack.telemetry.standard_error import set_apart

EPILOG = """First steps:\n
  rlstack doctor\n
  rlstack train configs/quickstart.yaml\n
  rlstack train --help\n
  rlstack --install-completion"""

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"rlstack {version('rlstack-megatron')}")
        raise typer.Exit


@app.callback(epilog=EPILOG)
def rlstack(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Post-training of language models: offline, semi-online and online, in one loop."""


app.command(epilog=train.EPILOG)(train.train)
app.command(epilog=doctor.EPILOG)(doctor.doctor)
app.command(epilog=launch.EPILOG)(launch.launch)
app.command(epilog=tune.EPILOG)(tune.tune)
app.command(epilog=evaluate.EPILOG)(evaluate.evaluate)
app.command(epilog=score.EPILOG)(score.score)
app.command(epilog=judge.EPILOG)(judge.judge)
app.command(epilog=export.EPILOG)(export.export)
app.command(epilog=report.EPILOG)(report.report)
app.command(epilog=compare.EPILOG)(compare.compare)
app.command(epilog=plan.EPILOG)(plan.plan)
app.command("plan-transfer", epilog=plan_transfer.EPILOG)(plan_transfer.plan_transfer)


def main() -> None:
    """The entry point of the `rlstack` script."""
    set_apart()
    _show_any_text()
    unbind_threads(os.environ)
    compile_privately()
    app()


class _Shown(logging.Formatter):
    """Of warnings, which repeat what files and answers hold."""

    def format(self, record: logging.LogRecord) -> str:
        return for_terminal(super().format(record))


def _show_any_text() -> None:
    """Have characters replaced that the terminal's encoding lacks, or that would move its cursor."""
    if logging.lastResort is not None:  # which writes warnings to the terminal
        logging.lastResort.setFormatter(_Shown())
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="replace")
