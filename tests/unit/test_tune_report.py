"""tune.json and the report that is drawn from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlstack.tuning.interval.document import document, to_text
from rlstack.tuning.interval.figures import (
    average,
    breakdown,
    cost_against_reward,
    pareto,
    reward_against,
)
from rlstack.tuning.interval.halving import rungs
from rlstack.tuning.interval.intervals import Interval
from rlstack.tuning.interval.measures import measure
from rlstack.tuning.interval.recommend import recommend
from rlstack.tuning.interval.report import write_report
from rlstack.tuning.interval.tables import measures_table, rounds_table, trials_table
from rlstack.tuning.interval.trials import Trial, TrialResult
from tests.tuned import plan, result

Made = dict[str, Any]


def make(
    results: list[TrialResult], *, failures: dict[Trial, str] | None = None, predicted: float | None = 0.9
) -> Made:
    asked = plan(1, 5, None, seeds=2)
    by_trial = {r.trial: r for r in results}
    measured = measure(results, margin=asked.margin, confidence=asked.confidence, accelerators=2)
    return json.loads(
        to_text(
            document(
                "quickstart.yaml",
                asked,
                accelerator="cores",
                results=by_trial,
                failures=failures or {},
                rungs=rungs(asked, by_trial, failures or {}),
                measured=measured,
                recommendation=recommend(measured, margin=asked.margin, confidence=asked.confidence),
                predicted=None if predicted is None else dict.fromkeys(asked.intervals, predicted),
                notes=["a note"],
                origin={
                    "machine": {"num_cores": 2, "cpu": "a processor"},
                    "versions": {"torch": "2.13.0"},
                    "command": "rlstack tune quickstart.yaml",
                },
            )
        )
    )


@pytest.fixture
def made() -> Made:
    steps: dict[Interval, float] = {1: 2.0, 5: 1.0, None: 0.5}
    return make(
        [
            result(s, seed, step_s=step_s, reward=0.3 if s is None else 0.7 + seed / 100, accuracy=0.8)
            for s, step_s in steps.items()
            for seed in range(2)
            if s is not None or seed == 0
        ]
    )


def test_the_document_has_what_was_found_and_all_it_was_found_from(made: Made) -> None:
    assert (made["recommended"], made["paste"]) == (5, "schedule.sync_interval=5")
    assert [row["interval"] for row in made["measures"]] == [1, 5, "inf"]
    assert [row["verdict"] for row in made["measures"]] == ["not worse", "not worse", "worse"]
    assert made["rungs"][0] == {"intervals": [1, 5, "inf"], "seeds": [0], "kept": [1, 5]}
    assert len(made["trials"]) == 5 and len(made["trials"][0]["rewards"]) == made["plan"]["num_steps"]


def test_offline_is_told_apart_from_no_recommendation() -> None:
    offline = [result(s, seed, step_s=1.0 if s else 0.5) for s in (1, None) for seed in (0, 1)]
    found = make(offline)
    assert (found["recommended"], found["paste"]) == ("inf", "schedule.sync_interval=null")
    none = make(
        [result(5)], failures={Trial(1, 0): "a rank died", Trial(1, 1): "again", Trial(None, 0): "too"}
    )
    assert (none["recommended"], none["paste"]) == (None, None)
    assert none["failures"][0] == {"interval": 1, "seed": 0, "reason": "a rank died"}


def test_the_tables_have_a_row_for_each_interval_round_and_trial(made: Made) -> None:
    header, rows = measures_table(made)
    assert len(header) == len(rows[0])
    assert [row[0] for row in rows] == ["1", "5", "inf"]
    assert rows[2][4] == "worse" and rows[2][-2] == "not reached"
    assert rounds_table(made)[1][0] == ["1, 5, inf", "0", "1, 5"]
    assert len(trials_table(made)[1]) == 5


@pytest.mark.parametrize(("axis", "last"), [("steps", 12.0), ("minutes", 0.4), ("hours", 2 * 24 / 3600)])
def test_rewards_are_drawn_against_steps_and_time(made: Made, axis: str, last: float) -> None:
    traces = reward_against(made, axis)["data"]
    lines = [trace for trace in traces if trace.get("mode") == "lines"]
    assert [line["name"] for line in lines] == ["s = 1", "s = 5", "s = inf"]
    assert lines[0]["x"][-1] == pytest.approx(last, rel=1e-3)
    assert lines[0]["y"][-1] == pytest.approx(0.705)
    assert len(traces) - len(lines) == 2  # bands of those with two seeds


def test_curves_are_averaged_where_all_of_them_are() -> None:
    found = average(
        [(np.array([0.0, 4.0]), np.array([0.0, 4.0])), (np.array([1.0, 3.0]), np.array([1.0, 1.0]))]
    )
    assert (found.x[0], found.x[-1]) == (1.0, 3.0)
    assert (found.mean[-1], found.low[-1], found.high[-1]) == (2.0, 1.0, 3.0)


def test_the_front_has_what_no_other_beats_in_both() -> None:
    assert pareto([1.0, 2.0, 3.0, 2.5], [0.5, 0.7, 0.6, 0.8]) == [0, 1, 3]
    assert pareto([1.0, 1.0], [0.5, 0.7]) == [1]


def test_the_bars_of_a_step_add_up_to_its_time(made: Made) -> None:
    plot = breakdown(made)
    bars = [trace for trace in plot["data"] if trace.get("type") == "bar"]
    assert [sum(bar["y"][i] for bar in bars) for i in range(3)] == pytest.approx([2.0, 1.0, 0.5])
    assert plot["data"][-1]["y"] == [0.9] * 3  # the forecast
    assert {trace["name"] for trace in cost_against_reward(made)["data"]} >= {"s = 1", "s = 5", "s = inf"}


def test_the_report_is_written_with_and_without_a_recommendation(made: Made, tmp_path: Path) -> None:
    write_report(made, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "schedule.sync_interval=5" in page and page.count('class="plot"') == 5
    write_report(make([], failures={Trial(1, 0): "a rank <died>"}), tmp_path / "none.html")
    page = (tmp_path / "none.html").read_text()
    assert "a rank &lt;died&gt;" in page and 'class="plot"' not in page
