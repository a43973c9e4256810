"""`rlstack launch`."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlstack.cli.completion import complete_setting
from rlstack.cli.exit_status import exit_status

if TYPE_CHECKING:
    from rlstack.config.schema import RunConfig

EPILOG = """Examples:\n
  rlstack launch my-run.yaml --address auto\n
  rlstack launch my-run.yaml --address 10.0.0.1:6379 run.name=long --resume\n
  rlstack launch my-run.yaml --address http://10.0.0.1:8265 --detach"""


def launch(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file of settings.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            help="Settings to put over the file's.", metavar="KEY=VALUE", autocompletion=complete_setting
        ),
    ] = None,
    address: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS",
            help="Of a Ray cluster that runs. auto, or HOST:PORT: this machine is one of its nodes, and "
            "drives the training. http://HOST:PORT, of the dashboard: the head node does, as a job of Ray's.",
        ),
    ] = "auto",
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in that folder, as with rlstack train.")
    ] = False,
    detach: Annotated[
        bool, typer.Option("--detach", help="Do not wait for the end of the job; print its name.")
    ] = False,
) -> None:
    """Train as CONFIG says on a Ray cluster that runs already.

    Before any process starts, every node is asked for its packages, for the model and for the run's folder.
    Ends with the training's exit status; Ctrl-C, and the SIGTERM of a batch system, end the training.
    """
    with exit_status():
        from rlstack.config.load import load_config
        from rlstack.errors import ConfigError
        from rlstack.running import run
        from rlstack.urls import secret_part, without_secrets

        if address.startswith("ray://"):
            raise ConfigError(
                f"--address {address}: auto | HOST:PORT | http://HOST:PORT is accepted, for Ray Client has "
                "no driver on the cluster; give the dashboard's address, or run this on a node"
            )
        if (part := secret_part(address)) is not None:
            raise ConfigError(
                f"--address {without_secrets(address)}: an address without {part} is accepted, for it is "
                "shown; the cluster's token is read from the environment"
            )
        as_job = address.startswith(("http://", "https://"))
        if detach and not as_job:
            raise ConfigError(
                f"--detach: --address http://HOST:PORT is accepted with it, not {address}, for this process "
                "drives the training; give the dashboard's address, or leave it out"
            )
        if as_job:
            status = _as_job(load_config(config, overrides or ()), address, resume=resume, detach=detach)
            if status:
                raise typer.Exit(status)
            return
        signal.signal(signal.SIGTERM, _interrupt)
        run(load_config(config, [*(overrides or ()), f"cluster.address={address}"]), resume=resume)


def _as_job(config: RunConfig, address: str, *, resume: bool, detach: bool) -> int:
    from rlstack.orchestration.cluster_job import connect, follow, submit

    client = connect(address)
    job = submit(client, config, resume=resume)
    if detach:
        typer.echo(job)
        return 0
    typer.echo(f"job {job}; Ctrl-C ends it", err=True)
    return follow(client, job, show=lambda text: typer.echo(text, nl=False))


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt
