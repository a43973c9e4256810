"""`rlstack export`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from rlstack.cli.exit_status import exit_status

EPILOG = """Examples:\n
  rlstack export runs/math runs/math-8b                                 # the newest checkpoint\n
  rlstack export runs/math /models/math --best --dtype bfloat16\n
  rlstack export runs/math /models/math-40 --step 40\n
  rlstack export runs/math/checkpoints/step-00000040 /models/math-40"""


class Dtype(StrEnum):
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


def export(
    target: Annotated[
        Path, typer.Argument(metavar="RUN", help="The folder of a run, or of one of its checkpoints.")
    ],
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="The folder to write; it must not be there yet.")
    ],
    step: Annotated[
        int | None, typer.Option(min=0, help="Of the checkpoint; otherwise the newest.", show_default=False)
    ] = None,
    best: Annotated[bool, typer.Option("--best", help="The checkpoint with the best evaluation.")] = False,
    dtype: Annotated[
        Dtype | None, typer.Option(help="Otherwise the one trained in.", show_default=False)
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Where config.json and the tokenizer come from; otherwise the run's policy.model.",
            show_default=False,
        ),
    ] = None,
    max_file_gb: Annotated[float, typer.Option(min=0.001, help="Of one *.safetensors.")] = 5,
) -> None:
    """Write a checkpoint's weights as a Hugging Face folder, for transformers, vLLM or another run.

    Needs no GPU, and memory for the largest tensor twice. First every file of the checkpoint is held against
    its digest.
    """
    with exit_status():
        from rlstack.orchestration.checkpoint_target import find_checkpoint

        found = find_checkpoint(target, out, step=step, best=best, model=model)

        from rlstack.policy.checkpoint_export import export_checkpoint  # imports torch

        version = export_checkpoint(
            found.checkpoint,
            out,
            source=found.model,
            dtype=None if dtype is None else dtype.value,
            max_file_bytes=int(max_file_gb * 10**9),
        )
        typer.echo(f"{out}: the policy after {version} steps")
