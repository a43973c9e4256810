"""`rlstack doctor`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rlstack.cli.completion import complete_setting
from rlstack.cli.exit_status import exit_status
from rlstack.doctor import LIMIT_S

EPILOG = """Examples:\n
  rlstack doctor\n
  rlstack doctor --skip imports\n
  rlstack doctor --only packages --only disk-space\n
  rlstack doctor --start --json\n
  rlstack doctor configs/quickstart.yaml run.dir=runs\n
  rlstack doctor my-run.yaml cluster.address=10.0.0.1:6379 --only ray"""


def doctor(
    config: Annotated[
        Path | None,
        typer.Argument(
            metavar="CONFIG",
            help="YAML file, as for `rlstack train`: what this would refuse is found too. With "
            "cluster.address the cluster is joined, its nodes are listed and checked, and it is left again.",
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            help="Settings to put over the file's.", metavar="KEY=VALUE", autocompletion=complete_setting
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Of a check, or of a subject such as packages. Can be repeated."),
    ] = None,
    skip: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Likewise; --skip imports saves most of the time."),
    ] = None,
    start: Annotated[bool, typer.Option("--start", help="Start a Ray too, call it and end it.")] = False,
    timeout: Annotated[
        float,
        typer.Option(metavar="SECONDS", help="Of each import, of starting and of joining a Ray."),
    ] = LIMIT_S,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Check this machine, and CONFIG if it is given, and say what to do about what would fail.

    Run it first on a new machine, and put its output into a bug report: it shows no secrets.

    Exits with 1 if there is a problem. If even this does not start, try python -P -m rlstack.doctor.
    """
    with exit_status():
        from rlstack.doctor.command import run
        from rlstack.doctor.examine import Request
        from rlstack.errors import ConfigError

        try:
            request = Request(
                config=config,
                overrides=tuple(overrides or ()),
                only=tuple(only or ()),
                skip=tuple(skip or ()),
                start=start,
                limit_s=timeout,
            )
        except ValueError as error:
            raise ConfigError(str(error)) from None
        status = run(request, as_json=as_json)
    if status:
        raise typer.Exit(status)
