"""What a report draws of a run's metrics: what is there, as it is there."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import pytest

from rlstack.telemetry.course_sections import COURSE, SIGNAL, course, signal, tasks
from rlstack.telemetry.html_page import Section
from rlstack.telemetry.metrics import metric_of
from rlstack.telemetry.run_figures import WINDOW, Panel, lines, logarithmic
from rlstack.telemetry.run_record import RunRecord, Times

Row = Mapping[str, Any]


def run(steps: Sequence[Row], evaluations: Sequence[Row] = ()) -> RunRecord:
    summary = {"evaluations": list(evaluations)}
    return RunRecord(path=Path(), settings={}, steps=steps, summary=summary, times=Times(), samples=[])


def figures(section: Section | None) -> dict[str, go.Figure]:
    """Every figure of the section, checked by Plotly, by its title."""
    assert section is not None
    markup = "".join(block.markup for block in section.blocks)
    found = re.findall(r'<script type="application/json">(.*?)</script>', markup)
    drawn = [go.Figure(json.loads(each)) for each in found]
    return {figure.layout.title.text: figure for figure in drawn}


def test_every_metric_that_is_drawn_is_declared() -> None:
    assert all(metric_of(metric) for panel in (*COURSE, *SIGNAL) for metric in panel.series.values())


def test_a_metric_is_each_step_and_the_mean_of_the_last() -> None:
    values = [float(step % 7) for step in range(1, 31)]
    steps = [{"step": step, "reward/mean": value} for step, value in enumerate(values, 1)]
    thin, thick = figures(course(run(steps)))["Reward"].data
    assert list(thin.y) == values
    expected = [sum(values[max(0, i - WINDOW) : i]) / min(i, WINDOW) for i in range(1, 31)]
    assert list(thick.y) == pytest.approx(expected)
    assert list(thin.x) == list(thick.x) == list(range(1, 31))


def test_metrics_that_share_axes_are_told_apart() -> None:
    steps = [
        {"step": step, "rollout/length_chosen_mean": 20.0 + step, "rollout/length_rejected_mean": 10.0}
        for step in (1, 2)
    ]
    figure = figures(signal(run(steps)))["Length in pairs"]
    shown = [(trace.name, trace.line.color) for trace in figure.data if trace.showlegend is not False]
    assert [name for name, _ in shown] == ["chosen", "rejected"]
    assert len({colour for _, colour in shown}) == 2
    assert figure.layout.showlegend


def test_mismatch_and_drift_are_on_a_logarithmic_scale_one_seen_through_the_other() -> None:
    steps = [
        {"step": step, "mismatch/logprob_abs_max": 1e-6, "drift/logprob_abs_max": 10.0**-step}
        for step in (1, 2, 3)
    ]
    figure = figures(course(run(steps)))["Generator against trainer"]
    mismatch, drift = figure.data
    assert (mismatch.name, drift.name, drift.line.dash) == ("mismatch", "drift", "dot")
    assert list(drift.y) == [0.1, 0.01, 0.001]
    assert figure.layout.yaxis.type == "log"


def test_a_signal_that_never_moves_is_left_out_and_a_metric_of_the_user_s_is_there() -> None:
    steps = [{"step": step, "rollout/cut_off": 0.0, "custom/brevity": 0.5, "grpo/kl": 0.1} for step in (1, 2)]
    assert list(figures(signal(run(steps)))) == ["KL to the reference", "brevity"]
    assert signal(run([{"step": 1, "rollout/cut_off": 0.0}])) is None


def test_several_tasks_have_figures_of_their_own() -> None:
    steps = [{"step": 1, "reward/mean/sums": 0.5, "reward/mean/notes": -1.0}]
    evaluations = [
        {
            "eval/version": version,
            "eval/sums/accuracy": 0.4,
            "eval/sums/accuracy_stderr": 0.02,
            "eval/sums/reward": 0.4,
            "eval/products/accuracy": 0.2,
            "eval/products/reward": 0.2,
            "eval/notes/reward": 1.5 + version,
        }
        for version in (0, 1)
    ]
    drawn = figures(tasks(run(steps, evaluations)))
    assert list(drawn) == [
        "Reward of notes",
        "Reward of sums",
        "Held-out accuracy",
        "Held-out reward of notes",
    ]
    products, sums = drawn["Held-out accuracy"].data
    assert (products.name, list(products.y)) == ("products", [0.2, 0.2])
    assert (sums.name, list(sums.error_y.array)) == ("sums", [0.02, 0.02])
    assert list(drawn["Held-out reward of notes"].data[0].y) == [1.5, 2.5]


def test_a_single_task_has_only_what_the_course_has_not() -> None:
    steps = [{"step": 1, "reward/mean/sums": 0.5}]
    accuracy = {"eval/version": 0, "eval/sums/accuracy": 0.4, "eval/sums/reward": 0.4}
    assert tasks(run(steps, [accuracy])) is None
    reward = {"eval/version": 0, "eval/notes/reward": 0.4}
    assert list(figures(tasks(run(steps, [reward])))) == ["Held-out reward of notes"]


def test_a_run_of_one_step_has_points_and_one_without_steps_nothing() -> None:
    (trace,) = figures(course(run([{"step": 1, "reward/mean": 0.5}])))["Reward"].data
    assert (trace.mode, list(trace.y)) == ("markers", [0.5])
    assert course(run([])) is None
    assert lines([{"step": 1, "reward/mean": None}], Panel("R", "", {"r": "reward/mean"})) is None


@pytest.mark.parametrize(
    ("values", "ticks"), [([1e-6, 5e-5], "D2"), ([1e-6, 1.0], None), ([0.0, 0.0], "D2"), ([], "D2")]
)
def test_a_narrow_logarithmic_axis_has_ticks_between_powers_of_ten(
    values: list[float], ticks: str | None
) -> None:
    axis = logarithmic(values)
    assert axis["type"] == "log"
    assert axis.get("dtick") == ticks
