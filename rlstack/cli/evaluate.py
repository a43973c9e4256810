"""`rlstack evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rlstack.cli.completion import complete_setting
from rlstack.cli.exit_status import exit_status
from rlstack.errors import for_terminal

EPILOG = """Examples:\n
  rlstack evaluate runs/quickstart\n
  rlstack evaluate Llama-3.1-8B-Instruct --task math500=math500.jsonl policy.precision=bf16\n
  rlstack evaluate runs/chat --trust-settings --arena-hard question.jsonl --alpaca-eval alpaca_eval.json"""


def evaluate(
    target: Annotated[
        Path, typer.Argument(metavar="TARGET", help="Folder of a run, Hugging Face folder, or YAML file.")
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            help="Settings to put over TARGET's.", metavar="KEY=VALUE", autocompletion=complete_setting
        ),
    ] = None,
    task: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=PATH[,SETTING=VALUE...]",
            help="Answer these rows instead of TARGET's evaluation.tasks; settings: template, reward, split, "
            "problem_field, answer_field. Can be repeated.",
        ),
    ] = None,
    n: Annotated[int, typer.Option(help="Answers per problem.")] = 50,
    temperature: Annotated[float | None, typer.Option(help="TARGET's, or 0.6.", show_default=False)] = None,
    top_p: Annotated[float | None, typer.Option(help="TARGET's, or 0.9.", show_default=False)] = None,
    max_new_tokens: Annotated[int | None, typer.Option(help="TARGET's, or 1024.", show_default=False)] = None,
    num_prompts: Annotated[
        int | None, typer.Option(help="The first this many of each task; otherwise all.", show_default=False)
    ] = None,
    alpaca_eval: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Answer AlpacaEval's alpaca_eval.json too, for a judge."),
    ] = None,
    arena_hard: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Answer Arena-Hard's question.jsonl too, for a judge.")
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(help="The model's name for a judge; otherwise its folder's.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Otherwise RUN/evaluation, or runs/NAME-evaluation. What is there is kept, so that "
            "an evaluation that was interrupted goes on.",
            show_default=False,
        ),
    ] = None,
    trust_settings: Annotated[
        bool,
        typer.Option(
            "--trust-settings",
            help="Use all settings in a run's folder as those of a YAML file, plug-ins, models and addresses "
            "among them. Without it only the tasks and how answers are sampled are taken from there.",
        ),
    ] = False,
) -> None:
    """Sample answers to held-out problems and score them: accuracy, pass@k, majority vote, rewards.

    Writes evaluation.json and answers.jsonl, and what AlpacaEval and Arena-Hard read.
    """
    with exit_status():
        from rlstack.evaluation.benchmarks import BenchmarkName
        from rlstack.evaluation.request import make_request
        from rlstack.evaluation.settings import find_target

        found = find_target(target, trust_settings=trust_settings)
        typer.echo(for_terminal(found.told), err=True)
        request = make_request(
            found,
            tasks=task or (),
            settings={
                "evaluation.n": n,
                "evaluation.temperature": temperature,
                "evaluation.top_p": top_p,
                "evaluation.num_prompts": num_prompts,
                "rollout.max_new_tokens": max_new_tokens,
            },
            overrides=overrides or (),
            benchmarks={BenchmarkName.alpaca_eval: alpaca_eval, BenchmarkName.arena_hard: arena_hard},
            name=name,
            out=out,
        )

        for each in request.config.evaluation.tasks:
            typer.echo(for_terminal(f"{each.name}: {each.path}"), err=True)

        from rlstack.evaluation.evaluate import evaluate as run  # imports torch and Ray

        run(request)
