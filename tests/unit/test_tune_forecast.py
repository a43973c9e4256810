"""What the tuner expects its trials to take, and what it gives up to keep within a budget."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from rlstack.config.load import load_config
from rlstack.errors import ConfigError
from rlstack.tuning.cost_model import predict
from rlstack.tuning.interval import forecast
from rlstack.tuning.interval.forecast import Forecast, make_forecast
from rlstack.tuning.interval.halving import Plan
from rlstack.tuning.interval.request import Request, shared
from rlstack.tuning.interval.trials import Trial
from rlstack.tuning.interval.tune import fit_to_budget
from rlstack.tuning.interval.workspace import Workspace
from rlstack.tuning.parts import Generation, Parts, Scoring, Sync, Training, Workload
from rlstack.tuning.setup import Setup
from tests.tuned import plan

QUICKSTART = Path(__file__).parents[2] / "configs" / "quickstart.yaml"
PARTS = Parts(
    workload=Workload(prompt_tokens=5, answer_tokens=(10,), trained_tokens_per_prompt=25),
    generation=Generation(decode_s=0.01, decode_s_per_sequence=0.001),
    training=Training(s_per_token=0.001),
    scoring=Scoring(s_per_rollout=0.001),
    sync=Sync(num_bytes=0, bytes_per_s=None, latency_s=0.2),
    evaluation_s=3.0,
    start_up_s=10.0,
)
EXPECTED = Forecast(parts=PARTS, setup=Setup(sync_interval=1), notes=())


def request(tmp_path: Path, *, asked: Plan, budget_s: float | None = None) -> Request:
    return Request(
        name="quickstart.yaml",
        config=shared(load_config(QUICKSTART), asked.num_steps, 1),
        plan=asked,
        accelerator="cores",
        out=tmp_path / "tune",
        calibrate=True,
        budget_s=budget_s,
    )


def test_a_trial_takes_its_steps_and_what_is_around_them() -> None:
    asked = plan(1, 5, None, num_steps=20)
    expected = predict(PARTS, Setup(sync_interval=5, num_steps=20))
    assert EXPECTED.step_s(asked)[5] == pytest.approx(expected.wall_s / 20)
    assert EXPECTED.trial_s(asked)(Trial(5, 3)) == pytest.approx(10 + 2 * 3 + expected.wall_s)
    assert EXPECTED.trial_s(asked)(Trial(1, 0)) > EXPECTED.trial_s(asked)(Trial(None, 0))


def total_s(asked: Plan) -> float:
    return sum(map(EXPECTED.trial_s(asked), asked.most_trials()))


def test_a_plan_is_shortened_to_the_time_that_the_calibration_has_left(tmp_path: Path) -> None:
    asked = plan(1, 5, None, seeds=3, num_steps=20)
    enough = request(tmp_path, asked=asked, budget_s=total_s(asked) + 60)
    assert fit_to_budget(enough, EXPECTED, spent_s=60) == (asked, [])
    shorter, notes = fit_to_budget(enough, EXPECTED, spent_s=61)
    assert shorter == dataclasses.replace(asked, seeds=(0, 1))
    assert notes == [f"shortened to fit --budget-minutes {enough.budget_s / 60:g}"]  # type: ignore[operator]
    with pytest.raises(ConfigError, match="--budget-minutes: at least"):
        fit_to_budget(enough, EXPECTED, spent_s=total_s(asked))


def test_without_a_budget_or_a_forecast_nothing_is_shortened(tmp_path: Path) -> None:
    asked = plan(1, 5)
    assert fit_to_budget(request(tmp_path, asked=asked), EXPECTED, spent_s=0) == (asked, [])
    assert fit_to_budget(request(tmp_path, asked=asked, budget_s=1.0), None, spent_s=0) == (asked, [])


def test_a_calibration_that_fails_leaves_the_tuning_without_a_forecast(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = []

    def train(config: Path, overrides: Sequence[str], *, log: Path, watch: Callable[[], None] = print) -> int:
        trained.append(load_config(config, overrides))
        log.write_text("error: no memory left\n")
        return 1

    monkeypatch.setattr(forecast, "train_in_process", train)
    asked, printed = request(tmp_path, asked=plan(1, 5)), StringIO()
    with Workspace(asked.out, asked.config) as workspace:
        assert make_forecast(asked, workspace, Console(file=printed, width=300)) is None
    (settings,) = trained
    assert Path(settings.run.dir) == asked.out / "calibration"
    assert "failed: no memory left" in printed.getvalue()
