"""`rlstack train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rlstack.cli.completion import complete_setting
from rlstack.cli.exit_status import exit_status

EPILOG = """Examples:\n
  rlstack train configs/quickstart.yaml\n
  rlstack train configs/quickstart.yaml run.name=online schedule.sync_interval=1\n
  rlstack train configs/quickstart.yaml run.name=offline schedule.sync_interval=null\n
  rlstack train configs/quickstart.yaml run.name=grpo objective.name=grpo\n
  rlstack train configs/quickstart.yaml policy.tensor_parallel=2 rollout.tensor_parallel=2\n
  rlstack train configs/quickstart.yaml --check\n
  rlstack train configs/quickstart.yaml --resume\n
  rlstack train runs/quickstart/config.yaml --resume schedule.num_steps=200"""


def train(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file of settings.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            help="Settings to put over the file's.", metavar="KEY=VALUE", autocompletion=complete_setting
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with the run in that folder, from its newest checkpoint. A run without one, or that "
            "has not been begun, begins. Only settings that leave its results as they are may differ.",
        ),
    ] = False,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Start nothing and touch no run: print what would run, or everything that would be refused "
            "(exit status 2).",
        ),
    ] = False,
) -> None:
    """Train as CONFIG says; everything the run leaves is in the folder run.dir/run.name.

    Paths in CONFIG are relative to its folder; paths given here, and run.dir, to the working directory.
    """
    with exit_status():
        from rlstack.config.load import load_config
        from rlstack.running import prepare, run

        if check:
            from rlstack.preflight.what_runs import what_runs

            typer.echo(what_runs(prepare(load_config(config, overrides or ()), resume=resume)))
            return
        run(load_config(config, overrides or ()), resume=resume)
