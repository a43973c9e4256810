"""What `rlstack tune` refuses before anything starts, each with one clear error; and its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import rlstack.tuning.interval.tune
from rlstack.cli import app
from rlstack.errors import ConfigError
from rlstack.tuning.interval.intervals import choose, setting
from rlstack.tuning.interval.request import Request, make_request
from rlstack.tuning.interval.workspace import Workspace

QUICKSTART = Path(__file__).parents[2] / "configs" / "quickstart.yaml"


def request(*overrides: str, **options: Any) -> Request:
    defaults: dict[str, Any] = {
        "intervals": None,
        "steps": None,
        "seeds": 2,
        "margin": 0.02,
        "confidence": 0.9,
        "out": None,
        "calibrate": False,
        "budget_minutes": None,
    }
    return make_request(QUICKSTART, overrides, **(defaults | options))


def test_the_default_intervals_are_those_that_the_steps_can_tell_apart() -> None:
    assert choose(None, num_steps=120, lag=0) == (1, 2, 5, 10, 20, 50, None)
    assert choose(None, num_steps=40, lag=0) == (1, 2, 5, 10, 20, None)
    assert choose(None, num_steps=40, lag=1) == (1, 2, 5, 10)  # offline has no lag


def test_online_is_always_tried_and_each_interval_once_in_order() -> None:
    assert choose("inf, 10,5,10", num_steps=120, lag=0) == (1, 5, 10, None)


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ({"text": "1,two", "num_steps": 120, "lag": 0}, "--intervals 'two': positive integers and inf"),
        ({"text": "0", "num_steps": 120, "lag": 0}, "--intervals '0': positive integers"),
        ({"text": "1,61", "num_steps": 120, "lag": 0}, "--intervals 61: at most 60 is accepted"),
        ({"text": "1,60", "num_steps": 120, "lag": 1}, "raise --steps to 121"),
        ({"text": "inf", "num_steps": 120, "lag": 2}, "with schedule.lag = 2"),
        ({"text": None, "num_steps": 1, "lag": 0}, "--steps 1: at least 2 is accepted"),
    ],
)
def test_intervals_that_trials_cannot_judge_are_refused(options: dict[str, Any], shown: str) -> None:
    with pytest.raises(ConfigError, match="--") as error:
        choose(**options)
    assert shown in str(error.value)


def test_the_setting_to_paste() -> None:
    assert [setting(s) for s in (10, None)] == ["schedule.sync_interval=10", "schedule.sync_interval=null"]


def test_trials_have_the_settings_of_the_configuration_without_evaluations_between_steps() -> None:
    made = request("schedule.num_steps=500", "schedule.evaluate_every=10", "run.seed=7", "rollout.n=4")
    assert made.plan.num_steps == made.config.schedule.num_steps == 120
    assert made.plan.seeds == (7, 8)
    assert (made.config.rollout.n, made.config.schedule.evaluate_every) == (4, None)
    assert made.out == Path("runs/quickstart-tune").absolute()


@pytest.mark.parametrize(
    ("overrides", "shown"),
    [
        (["schedule.sync_interval=auto"], "schedule.sync_interval = "),
        (["rollout.n=1"], "rollout.n = 1"),
        (["nothing=1"], "there is no such setting"),
        (["policy.pipeline_parallel=3"], "policy.pipeline_parallel = 3"),
    ],
)
def test_settings_that_no_trial_can_work_with_are_refused(overrides: list[str], shown: str) -> None:
    done = CliRunner().invoke(app, ["tune", str(QUICKSTART), *overrides, "--out", "/nowhere"])
    assert done.exit_code == 2
    assert shown in done.output
    assert "Traceback" not in done.output


def test_a_folder_is_gone_on_with_by_the_same_tuning_only(tmp_path: Path) -> None:
    first = request(out=tmp_path / "tune")
    for _ in range(2):
        with Workspace(first.out, first.config) as workspace:
            assert workspace.trials.is_dir()
    other = request("optimizer.lr=1e-3", out=tmp_path / "tune")
    with pytest.raises(ConfigError, match=r"a tuning with optimizer\.lr = 0\.0001, not 0\.001; give another"):
        Workspace(other.out, other.config)
    with Workspace(first.out, first.config):
        pass  # the one that was refused does not hold it


def test_more_seeds_and_intervals_are_the_same_tuning(tmp_path: Path) -> None:
    for options in ({"seeds": 1}, {"seeds": 4, "intervals": "1,3"}):
        made = request(out=tmp_path / "tune", **options)
        with Workspace(made.out, made.config):
            pass


def test_a_folder_of_something_else_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")
    made = request(out=tmp_path)
    with pytest.raises(ConfigError, match="is not the folder of a tuning"):
        Workspace(made.out, made.config)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_two_tunings_do_not_share_a_folder(tmp_path: Path) -> None:
    made = request(out=tmp_path / "tune")
    with Workspace(made.out, made.config), pytest.raises(ConfigError, match="a tuning is going on there"):
        Workspace(made.out, made.config)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    made = request(out=tmp_path / "file" / "tune")
    with pytest.raises(ConfigError, match=r"--out .*: Not a directory; give a folder to write to"):
        Workspace(made.out, made.config)


@pytest.mark.parametrize(("is_complete", "status"), [(True, 0), (False, 1)])
def test_the_exit_status_says_whether_all_that_was_asked_for_is_done(
    is_complete: bool, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tune(request: Request, *, command: str) -> bool:
        options = "--intervals 5 --seeds 2 --budget-minutes 1.5 --no-calibrate"
        assert command == f"rlstack tune quickstart.yaml run.seed=3 {options}"
        assert (request.plan.intervals, request.plan.seeds, request.budget_s) == ((1, 5), (3, 4), 90.0)
        return is_complete

    monkeypatch.setattr(rlstack.tuning.interval.tune, "tune", tune)
    options = ["--intervals", "5", "--seeds", "2", "--budget-minutes", "1.5", "--no-calibrate", "--out", "x"]
    done = CliRunner().invoke(app, ["tune", str(QUICKSTART), "run.seed=3", *options])
    assert done.exit_code == status
