"""`rlstack score`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rlstack.cli.exit_status import exit_status

EPILOG = """Examples:\n
  rlstack score answers.jsonl --reward math --out scored.jsonl\n
  rlstack score answers.jsonl --reward configs/tiny/reward_model --out scored.jsonl\n
  rlstack score answers.jsonl --reward my_rewards:brevity --out scored.jsonl"""


def score(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="JSONL rows with problem, answer and responses.")
    ],
    reward: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="math, a reward model's folder or name, or a plug-in: package.module:attribute.",
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="OUT", help="The same rows, with rewards and outcomes.")],
    config: Annotated[
        Path | None, typer.Option(metavar="CONFIG", help="YAML file whose `reward` settings to use.")
    ] = None,
    problem_field: Annotated[
        str, typer.Option(metavar="FIELD", help="Of a row: the problem, which math needs not.")
    ] = "problem",
    answer_field: Annotated[
        str, typer.Option(metavar="FIELD", help="Of a row: the gold answer, which math needs.")
    ] = "answer",
) -> None:
    """Score given answers; where the rows have `correct` labels, say how far they agree with the rewards.

    A response without a reward gets null, and its outcome says why: none (a plug-in gave none), timeout or
    error. Rows are written as they are scored; the same command after an interruption continues after them.
    Exits with 1 if no response has a reward.
    """
    with exit_status():
        from rlstack.config.load import load_config
        from rlstack.config.schema import RunConfig

        settings = RunConfig() if config is None else load_config(config)

        from rlstack.orchestration.score_file import score_file
        from rlstack.rewards.answer_file import Fields

        fields = Fields(problem=problem_field, answer=answer_field)
        any_scored = score_file(file, out, reward=reward, config=settings, fields=fields)
    if not any_scored:
        raise typer.Exit(1)
