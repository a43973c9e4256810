"""`rlstack plan`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rlstack.cli.completion import complete_setting
from rlstack.cli.exit_status import exit_status

EPILOG = """Examples:\n
  rlstack plan configs/paper/math_s10.yaml --gpus 40\n
  rlstack plan configs/paper/math_s10.yaml --trainer-gpus 32 --engine-gpus 8 --explain\n
  rlstack plan configs/paper/math_s10.yaml policy.model=Llama-3.1-70B --trainer-gpus 64 --engine-gpus 16\n
  rlstack plan configs/clusters/llama-3.1-8b_32+8.yaml --comment\n
  rlstack plan my.yaml --gpus 16 --gpu h100 --assume answer_share=0.5 --price-per-gpu-hour 3"""


def plan(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file, as for `rlstack train`.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            help="Settings to put over CONFIG's.", metavar="KEY=VALUE", autocompletion=complete_setting
        ),
    ] = None,
    gpus: Annotated[
        int | None, typer.Option(min=2, help="Of all, reward models' among them; the split is chosen.")
    ] = None,
    gpu: Annotated[str, typer.Option(help="h100, h200 or b200, in nodes of 8.")] = "h200",
    trainer_gpus: Annotated[int | None, typer.Option(min=1, help="For the policy.")] = None,
    engine_gpus: Annotated[int | None, typer.Option(min=1, help="For the engines.")] = None,
    intervals: Annotated[str, typer.Option(help="Sync intervals to compare.")] = "1,5,10,50,inf",
    assume: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=NUMBER", help="Put over what is assumed, like mfu=0.35. Can be repeated."),
    ] = None,
    price_per_gpu_hour: Annotated[
        float | None, typer.Option(min=0, help="In any currency: adds a column.")
    ] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Print every figure's arithmetic.")] = False,
    comment: Annotated[
        bool,
        typer.Option("--comment", help="Only print the memory of CONFIG's own layout, as YAML comments."),
    ] = False,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write all figures there too.")
    ] = None,
) -> None:
    """Say whether CONFIG fits on GPUs, in which layout, and what its steps will take and cost.

    Needs no GPU, no data and no weights: policy.model is a folder with a config.json, or a name like
    Llama-3.1-8B. Nothing is measured: every figure is computed from data sheets and assumptions.
    """
    with exit_status():
        from rlstack.tuning.planning.command import run

        run(
            config,
            overrides or (),
            gpu=gpu,
            num_gpus=gpus,
            trainer_gpus=trainer_gpus,
            engine_gpus=engine_gpus,
            intervals=intervals,
            assume=assume or (),
            price_per_gpu_hour=price_per_gpu_hour,
            explain=explain,
            comment=comment,
            json_file=json_file,
        )
