"""`rlstack judge`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from rlstack.cli.exit_status import exit_status
from rlstack.errors import ConfigError

EPILOG = """Example:\n
  rlstack judge runs/chat/evaluation/alpaca_eval/model_outputs.json alpaca_eval_gpt4_baseline.json \\\n
    --endpoint http://localhost:8000/v1 --model Llama-3.3-70B-Instruct"""


def judge(
    outputs: Annotated[
        Path,
        typer.Argument(metavar="OUTPUTS", help="AlpacaEval's model_outputs.json or Arena-Hard's NAME.jsonl."),
    ],
    baseline: Annotated[
        Path, typer.Argument(metavar="BASELINE", help="Another model's answers to the same prompts.")
    ],
    endpoint: Annotated[
        str,
        typer.Option(
            metavar="URL", help="OpenAI-compatible, like http://localhost:8000/v1. All texts go there."
        ),
    ],
    model: Annotated[str, typer.Option(metavar="NAME", help="The judge, as the endpoint calls it.")],
    api_key_env: Annotated[
        str | None,
        typer.Option(metavar="VARIABLE", help="Environment variable of the API key; otherwise none is sent."),
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Questions asked at the same time.")] = 8,
    temperature: Annotated[float, typer.Option(min=0, help="Of the judge.")] = 0.0,
    max_tokens: Annotated[int, typer.Option(min=1, help="Of one reply of the judge.")] = 2048,
    timeout_s: Annotated[float, typer.Option(min=0.001, help="Of one question.")] = 120.0,
    max_attempts: Annotated[
        int, typer.Option(min=1, help="At one question, failures that pass included.")
    ] = 5,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Otherwise OUTPUTS-against-BASELINE beside OUTPUTS. Verdicts that are there are kept.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Let a judge compare two models' answers: the win rate of OUTPUTS over BASELINE.

    Every pair is judged in both orders. Writes win_rate.json and judgments.jsonl.
    """
    with exit_status():
        from rlstack.evaluation.endpoint import Endpoint
        from rlstack.evaluation.judge import judge as run
        from rlstack.evaluation.judge import show

        client = Endpoint(
            endpoint,
            model,
            api_key=_api_key(api_key_env),
            temperature=temperature,
            max_tokens=max_tokens,
            timeout_s=timeout_s,
            max_attempts=max_attempts,
        )
        folder = out or outputs.with_name(f"{outputs.stem}-against-{baseline.stem}")
        result = run(outputs, baseline, endpoint=client, model=model, concurrency=concurrency, out=folder)
        show(result, folder)


def _api_key(variable: str | None) -> str | None:
    if not variable:
        return None
    if key := os.environ.get(variable):
        return key
    raise ConfigError(f"--api-key-env {variable}: the variable is not set; export it")
