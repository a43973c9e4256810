"""`rlstack plan-transfer`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rlstack.cli.exit_status import exit_status
from rlstack.config.schema import Precision

EPILOG = """Examples:\n
  rlstack plan-transfer Llama-3.1-70B --from TP8PP4 --to 4xTP8\n
  rlstack plan-transfer Qwen2.5-7B --from TP2PP2DP2 --to 8xTP1 --infiniband 25"""


def plan_transfer(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Hugging Face folder, or a name like Llama-3.1-70B.")
    ],
    trainer: Annotated[str, typer.Option("--from", metavar="LAYOUT", help="The trainer's, like TP8PP4DP2.")],
    engines: Annotated[str, typer.Option("--to", metavar="LAYOUT", help="The engines', like 4xTP8.")],
    dtype: Annotated[Precision, typer.Option(help="On the wire: the engines'.")] = Precision.bf16,
    bucket_mib: Annotated[int, typer.Option(min=1, help="As transfer.bucket_mib.")] = 256,
    nvlink: Annotated[float, typer.Option(min=0.001, help="GB/s per GPU and direction.")] = 450,
    infiniband: Annotated[float, typer.Option(min=0.001, help="GB/s per GPU and direction.")] = 50,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the figures there too.")
    ] = None,
) -> None:
    """Say what syncing MODEL's weights between two layouts moves, and how fast that can be at best.

    Needs no GPU and no weights.
    """
    with exit_status():
        from rlstack.model.known_models import architecture_of
        from rlstack.orchestration.layout_text import parse_engines, parse_trainer

        architecture = architecture_of(model)
        layouts = parse_trainer(trainer, architecture), parse_engines(engines, architecture)

        from rlstack.orchestration.plan_transfer import show
        from rlstack.orchestration.transfer_forecast import forecast  # imports torch

        figures = forecast(
            architecture,
            *layouts,
            itemsize=4 if dtype is Precision.fp32 else 2,
            bucket_bytes=bucket_mib << 20,
            gb_per_s={"NVLink": nvlink, "InfiniBand": infiniband},
        )
        show(figures, title=f"{model}: {trainer} to {engines}, {dtype.value}", json_file=json_file)
