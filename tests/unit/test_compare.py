"""Runs over each other: what the page and the table say is what the runs' files say."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import pytest
import yaml
from typer.testing import CliRunner, Result

from rlstack.cli import app
from rlstack.telemetry.axes import Axis
from rlstack.telemetry.comparison.figures import overlay
from rlstack.telemetry.comparison.runs import read_runs
from rlstack.telemetry.comparison.tables import (
    OUTCOME_HEADER,
    differing_machines,
    differing_settings,
    outcome_rows,
)
from rlstack.telemetry.curves import make_curves

Row = Mapping[str, Any]

MACHINE = {"hardware": {"cpu": "fast", "gpus": []}, "versions": {"torch": "2"}}


def write_run(
    parent: Path,
    name: str,
    rewards: Iterable[float],
    *,
    seed: int = 0,
    step_s: float = 2.0,
    settings: Row | None = None,
    summary: Row | None = None,
) -> Path:
    """A run that is going on, or one that has ended with `summary`."""
    folder = parent / name
    folder.mkdir(parents=True)
    own = {"run": {"name": "same", "dir": str(parent), "seed": seed}, "objective": {"beta": 0.1}}
    (folder / "config.yaml").write_text(yaml.safe_dump(own | dict(settings or {})))
    rows = [
        {"step": step, "reward/mean": reward, "time/step_s": step_s, "tokens/generated": 100}
        for step, reward in enumerate(rewards, 1)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if summary is not None:
        (folder / "summary.json").write_text(json.dumps(MACHINE | dict(summary)))
    return folder


def ended(*, evaluations: Iterable[Row] = (), **others: Any) -> dict[str, Any]:
    of_steps = {"status": "completed", "steps": 3, "reward_first20": 0.25, "reward_last20": 0.5, "syncs": 2}
    totals = {"tokens": {"generated": 300, "trained": 600}, "mismatch_logprob_abs_max": 1e-5}
    return of_steps | totals | {"evaluations": list(evaluations)} | others


def accuracy(version: int, value: float, error: float = 0.01) -> Row:
    return {"eval/version": version, "eval/accuracy": value, "eval/accuracy_stderr": error}


def compare(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["compare", *map(str, arguments)], env={"COLUMNS": "100"})


def test_the_page_has_what_the_runs_left(tmp_path: Path) -> None:
    evaluations = [accuracy(0, 0.4), accuracy(3, 0.8)]
    a = write_run(tmp_path, "a-0", [0.1, 0.3, 0.5], summary=ended(evaluations=evaluations))
    b = write_run(tmp_path, "a-1", [0.3, 0.5], seed=1, summary=ended(evaluations=evaluations))
    other = {"objective": {"beta": 0.5}}
    c = write_run(tmp_path, "<c>", [0.2], settings=other, summary=ended(hardware={"cpu": "slow"}))
    out = tmp_path / "compare.html"
    done = compare(a, b, c, "--out", out)
    assert done.exit_code == 0, done.output
    assert done.output.splitlines()[-1] == str(out)
    assert re.search(r"a-0 +completed +3 +0.250 → 0.500 +0.400 → 0.800 ± 0.010 +2.000", done.output)
    page = out.read_text()
    assert "<h1>a-0, a-1, &lt;c&gt;</h1>" in page
    assert re.findall("<h2>(.*)</h2>", page) == [
        "Outcomes",
        "Reward and accuracy",
        "Course",
        "Settings that differ",
        "Machines and versions that differ",
    ]
    assert "Warning: these runs had different machines or versions" in page
    assert '<td>objective.beta</td><td class="text">0.1</td><td class="text">0.5</td>' in page
    figures = [
        go.Figure(json.loads(found))
        for found in re.findall(r'<script type="application/json">(.*?)</script>', page)
    ]
    titles = [(figure.layout.title.text, figure.layout.xaxis.title.text) for figure in figures]
    assert titles == [
        ("Reward", "optimiser steps"),
        ("Reward", "seconds of steps"),
        ("Held-out accuracy", "optimiser steps"),
        ("Held-out accuracy", "seconds of steps"),
        ("Time per step", "optimiser steps"),
    ]


def test_the_outcome_is_the_summary_s_or_that_of_the_steps_so_far(tmp_path: Path) -> None:
    evaluations = [accuracy(0, 0.4), accuracy(2, 0.8, 0.02)]
    folders = [
        write_run(tmp_path, "ended", [0.1, 0.3, 0.5], summary=ended(evaluations=evaluations)),
        write_run(tmp_path, "on", [0.1, 0.3]),
    ]
    first, second = (dict(zip(OUTCOME_HEADER, row, strict=True)) for row in outcome_rows(read_runs(folders)))
    assert list(first.values())[:4] == ["ended", "completed", "3", "0.250 → 0.500"]
    assert first["held-out accuracy"] == "0.400 → 0.800 ± 0.020 (version 2)"
    assert (first["s per step"], first["generated tokens/s"], first["trained tokens/s"]) == (
        "2.000",
        "50",
        "100",
    )
    assert (first["syncs"], first["largest mismatch"]) == ("2", "1.0e-05")
    assert list(second.values())[:5] == ["on", "going on", "2", "0.200 → 0.200", "–"]
    assert second["generated tokens/s"] == "50"


def test_runs_are_called_by_what_tells_their_folders_apart(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / parent, "run", [0.1]) for parent in ("x", "y")]
    single = write_run(tmp_path, "single", [0.1])
    names = [run.name for run in read_runs([*folders, single, tmp_path / "x" / ".." / "x" / "run"])]
    assert names == [str(folders[0]), str(folders[1]), "single"]


def test_a_curve_of_seeds_is_a_line_in_a_band_and_a_single_run_has_errors(tmp_path: Path) -> None:
    folders = [
        write_run(tmp_path, "a-0", [0.0, 0.4], step_s=1.0, summary=ended(evaluations=[accuracy(2, 0.5)])),
        write_run(tmp_path, "a-1", [0.2, 0.2], step_s=3.0, seed=1),
        write_run(
            tmp_path, "b", [1.0], settings={"x": 1}, summary=ended(evaluations=[accuracy(1, 0.7, 0.1)])
        ),
    ]
    curves = make_curves([run.log for run in read_runs(folders)])
    figure = overlay(curves, "reward/mean", title="R", unit="", axis=Axis.time, window=1)
    assert figure is not None
    band, line, single = figure["data"]
    assert (line["name"], line["x"], line["y"]) == ("a", [2.0, 4.0], pytest.approx([0.1, 0.3]))
    assert (band["x"], band["y"]) == ([2.0, 4.0, 4.0, 2.0], [0.2, 0.4, 0.2, 0.0])
    assert (single["name"], single["x"], single["y"]) == ("b", [2.0], [1.0])
    assert "error_y" not in line
    found = overlay(curves, "eval/accuracy", title="A", unit="", axis=Axis.tokens, window=1)
    assert found is not None
    (point,) = found["data"]  # one of the seeds was not evaluated
    assert (point["name"], point["x"], point["y"]) == ("b", [100.0], [0.7])
    assert point["error_y"]["array"] == [0.1]
    assert point["line"]["color"] == single["line"]["color"] != line["line"]["color"]
    assert overlay(curves, "grad_norm", title="", unit="", axis=Axis.step, window=1) is None


@pytest.mark.parametrize(
    ("step_s", "unit", "last"), [(10.0, "seconds", 20.0), (120.0, "minutes", 4.0), (7200.0, "hours", 4.0)]
)
def test_time_is_in_the_unit_that_suits_it(tmp_path: Path, step_s: float, unit: str, last: float) -> None:
    curves = make_curves([read_runs([write_run(tmp_path, "a", [0.1, 0.2], step_s=step_s)])[0].log])
    figure = overlay(curves, "reward/mean", title="R", unit="", axis=Axis.time, window=1)
    assert figure is not None
    assert figure["layout"]["xaxis"]["title"]["text"] == f"{unit} of steps"
    assert figure["data"][0]["x"][-1] == last


def test_only_settings_that_differ_are_listed_a_column_for_each_curve(tmp_path: Path) -> None:
    folders = [
        write_run(tmp_path, "a-0", [0.1]),
        write_run(tmp_path, "a-1", [0.1], seed=1),
        write_run(tmp_path / "elsewhere", "b", [0.1], settings={"objective": {"beta": 0.1, "alpha": None}}),
    ]
    runs = read_runs(folders)
    found = differing_settings(make_curves([run.log for run in runs]), runs)
    assert found == (
        ["", "a", "b"],
        [["run.seed", "0, 1", "0"], ["objective.alpha", "–", "null"]],
    )
    alone = read_runs(folders[:1])
    assert differing_settings(make_curves([run.log for run in alone]), alone) is None


def test_machines_are_compared_of_the_runs_that_have_ended(tmp_path: Path) -> None:
    folders = [
        write_run(tmp_path, "a", [0.1], summary=ended()),
        write_run(tmp_path, "b", [0.1], summary=ended(versions={"torch": "3"})),
        write_run(tmp_path, "on", [0.1]),
    ]
    assert differing_machines(read_runs(folders)) == (["", "a", "b"], [["torch", '"2"', '"3"']])
    assert differing_machines(read_runs([folders[0], folders[2]])) is None


def test_metrics_that_are_asked_for_are_drawn_in_place_of_the_others(tmp_path: Path) -> None:
    run = write_run(tmp_path, "a", [0.1, 0.2])
    out = tmp_path / "page.html"
    done = compare(run, "--out", out, "--metric", "tokens/generated", "--x", "tokens")
    assert done.exit_code == 0, done.output
    page = out.read_text()
    assert '"title": {"text": "tokens/generated"}' in page
    assert re.findall("<h2>(.*)</h2>", page) == ["Outcomes", "Reward and accuracy", "Metrics"]
    assert page.count('"sampled tokens"') == 2  # of the reward too


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{tmp}/nowhere"], "{tmp}/nowhere: is not the folder of a run"),
        (["{tmp}/a", "--metric", "reward/maen"], "--metric reward/maen: no step of these runs has such a"),
        (["{tmp}/a", "--out", "{tmp}/none/x.html"], "--out {tmp}/none/x.html: No such file or directory"),
        (["{tmp}/a", "--x", "hours"], "'hours' is not one of"),
        ([], "Missing argument 'RUN'"),
    ],
)
def test_what_cannot_be_compared_is_refused(tmp_path: Path, arguments: list[str], message: str) -> None:
    write_run(tmp_path, "a", [0.1])
    done = compare(*(each.format(tmp=tmp_path) for each in arguments))
    assert done.exit_code == 2
    assert message.format(tmp=tmp_path) in re.sub(r"[│\s]+", " ", done.output)
