"""`rlstack tune`."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from rlstack.cli.completion import complete_setting
from rlstack.cli.exit_status import exit_status

EPILOG = """Examples:\n
  rlstack tune configs/quickstart.yaml\n
  rlstack tune configs/quickstart.yaml --intervals 1,5,10,inf --seeds 2 --out runs/tune\n
  rlstack tune my-run.yaml rollout.n=16 --steps 60 --budget-minutes 240"""


def tune(
    context: typer.Context,
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file of settings.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            help="Settings to put over the file's.", metavar="KEY=VALUE", autocompletion=complete_setting
        ),
    ] = None,
    intervals: Annotated[
        str | None,
        typer.Option(
            metavar="S,S,...",
            help="Sync intervals to try; inf is offline. Otherwise those of 1,2,5,10,20,50,inf that the "
            "steps of a trial can tell apart. Online (1) is always among them.",
            show_default=False,
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(help="Of a trial; otherwise schedule.num_steps, at most 120.", show_default=False),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Of the intervals that are kept to the end.")] = 3,
    margin: Annotated[
        float, typer.Option(min=0.0, help="Reward per step that an interval may lose to online.")
    ] = 0.02,
    confidence: Annotated[
        float, typer.Option(min=0.5, max=0.999, help="Of the two-sided intervals around what is measured.")
    ] = 0.9,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Otherwise run.dir/NAME-tune. What is finished there is kept, so that a tuning that was "
            "interrupted goes on.",
            show_default=False,
        ),
    ] = None,
    budget_minutes: Annotated[
        float | None,
        typer.Option(
            min=0.1,
            help="Of this call. Given up for it: seeds down to two, every second interval, half of the "
            "steps, the second seed; in this order.",
            show_default=False,
        ),
    ] = None,
    calibrate: Annotated[bool, typer.Option(help="Fit the cost model first, for forecasts of time.")] = True,
) -> None:
    """Find the sync interval with the best reward per hour that loses nothing per step against online.

    Trains short trials with a set of intervals, on the same prompts and seeds, by successive halving. Writes
    tune.json and report.html, and names the setting to paste.
    """
    with exit_status():
        from rlstack.tuning.interval.request import make_request

        request = make_request(
            config,
            overrides or (),
            intervals=intervals,
            steps=steps,
            seeds=seeds,
            margin=margin,
            confidence=confidence,
            out=out,
            calibrate=calibrate,
            budget_minutes=budget_minutes,
        )

        from rlstack.tuning.interval.tune import tune as run

        shown = config.name if config.is_absolute() else str(config)
        words = ["rlstack", "tune", shown, *(overrides or ()), *_given(context)]
        is_complete = run(request, command=shlex.join(words))
    if not is_complete:
        raise typer.Exit(1)


def _given(context: typer.Context) -> Iterator[str]:
    """The options of the command line, but for the folder, which is this machine's."""
    for parameter in context.command.params:
        source, value = context.get_parameter_source(str(parameter.name)), context.params[str(parameter.name)]
        if source is None or source.name != "COMMANDLINE" or not parameter.opts[0].startswith("--"):
            continue
        if value is False:
            yield parameter.secondary_opts[0]
        elif parameter.name != "out":
            yield from (parameter.opts[0], *([] if value is True else [str(value)]))
