"""The trials one after the other: what fails, what is read instead of run, and when the time is up."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from rlstack.config.load import load_config
from rlstack.telemetry.timing import PHASES
from rlstack.tuning.interval import trial_runs
from rlstack.tuning.interval.request import shared
from rlstack.tuning.interval.trial_runs import TrialRuns
from rlstack.tuning.interval.trials import Trial
from rlstack.tuning.interval.workspace import Workspace
from tests.tuned import STEPS, plan

WALL_S = 2.0 * STEPS
QUICKSTART = Path(__file__).parents[2] / "configs" / "quickstart.yaml"


class Trainer:
    """In place of `rlstack train`: leaves the files of a run that did as told."""

    def __init__(self) -> None:
        self.trained: list[str] = []
        self.status_of: Callable[[str, int], str] = lambda name, attempt: "completed"
        self.exit_status = 1  # of runs that fail

    def __call__(
        self, config: Path, overrides: Sequence[str], *, log: Path, watch: Callable[[], None]
    ) -> int:
        folder, interval = self.told(overrides)
        self.trained.append(folder.name)
        status = self.status_of(folder.name, self.trained.count(folder.name))
        log.write_text(f"error: it {status}\n")
        if status == "failed":
            return self.exit_status
        folder.mkdir(exist_ok=True)
        rows = [self.row(step, interval) for step in range(STEPS)]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        summary = {
            "status": status,
            "steps": STEPS,
            "alarms": [{"reason": "too short"}],
            "syncs": 0,
            "tokens": {"generated": 1},
            "accuracy_final": 0.8,
            "wall_s": WALL_S,
        }
        (folder / "summary.json").write_text(json.dumps(summary))
        watch()
        return 0

    def told(self, overrides: Sequence[str]) -> tuple[Path, int]:
        """The run's folder and its interval."""
        values = dict(each.split("=", 1) for each in overrides)
        interval = json.loads(values["schedule.sync_interval"])
        return Path(json.loads(values["run.dir"])) / values["run.name"], interval or STEPS

    def is_finished(self, config: Path, overrides: Sequence[str]) -> bool:
        return (self.told(overrides)[0] / "summary.json").exists()

    def row(self, step: int, interval: int) -> dict[str, Any]:
        times = {f"time/{phase}_s": 0.0 for phase in PHASES} | {"time/step_s": 1 + 1 / interval}
        return {"step": step + 1, "version_age": step % interval, "reward/mean": step / STEPS, **times}


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch) -> Trainer:
    made = Trainer()
    monkeypatch.setattr(trial_runs, "train_in_process", made)
    monkeypatch.setattr(trial_runs, "is_finished", made.is_finished)
    return made


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    with Workspace(tmp_path / "tune", shared(load_config(QUICKSTART), STEPS, 1)) as made:
        yield made


def runs_in(workspace: Workspace, *, seeds: int = 2, **options: Any) -> tuple[TrialRuns, StringIO]:
    printed = StringIO()
    asked = plan(1, 5, None, seeds=seeds)
    defaults: dict[str, Any] = {"forecast": None, "deadline": None}
    return TrialRuns(asked, workspace, Console(file=printed, width=200), **(defaults | options)), printed


def test_every_trial_is_run_once_and_told_in_a_line(trainer: Trainer, workspace: Workspace) -> None:
    runs, printed = runs_in(workspace)
    runs.run()
    assert trainer.trained == ["s1-seed0", "s5-seed0", "offline-seed0", "s1-seed1", "offline-seed1"]
    lines = printed.getvalue().splitlines()
    assert "[1/5] s = 1, seed 0: reward 0.875, accuracy 0.800, 2.000 s per step" in lines[0]
    assert "goes on with s = 1, inf" in lines
    assert not runs.failures and not runs.is_cut_short


def test_what_is_finished_is_read_instead(trainer: Trainer, workspace: Workspace) -> None:
    runs_in(workspace)[0].run()
    again, printed = runs_in(workspace)
    again.run()
    assert len(trainer.trained) == 5 and len(again.results) == 5
    assert "was finished before" in printed.getvalue()


def test_a_trial_that_fails_is_tried_once_more(trainer: Trainer, workspace: Workspace) -> None:
    trainer.status_of = lambda name, attempt: "failed" if attempt == 1 else "completed"
    runs, printed = runs_in(workspace)
    runs.run()
    assert len(trainer.trained) == 10 and not runs.failures
    assert "failed, once more: it failed" in printed.getvalue()


def test_a_trial_that_fails_twice_is_given_up_with_its_reason(trainer: Trainer, workspace: Workspace) -> None:
    trainer.status_of = lambda name, attempt: "failed" if name.startswith("s5") else "completed"
    runs, _ = runs_in(workspace)
    runs.run()
    assert runs.failures == {Trial(5, 0): "it failed (exit status 1, see trials/s5-seed0.log)"}
    assert trainer.trained.count("s5-seed0") == 2 and len(runs.results) == 4


def test_settings_that_are_refused_are_not_tried_again(trainer: Trainer, workspace: Workspace) -> None:
    trainer.exit_status = 2
    trainer.status_of = lambda name, attempt: "failed"
    runs, _ = runs_in(workspace)
    runs.run()
    assert trainer.trained == ["s1-seed0", "s5-seed0", "offline-seed0", "s1-seed1"]


def test_a_trial_that_an_alarm_stopped_is_no_result(trainer: Trainer, workspace: Workspace) -> None:
    trainer.status_of = lambda name, attempt: "stopped" if name.startswith("offline") else "completed"
    runs, _ = runs_in(workspace)
    runs.run()
    assert runs.failures == {Trial(None, 0): f"stopped by an alarm after {STEPS} steps: too short"}
    assert trainer.trained.count("offline-seed0") == 1


def test_no_trial_is_begun_that_would_end_after_the_deadline(trainer: Trainer, workspace: Workspace) -> None:
    runs, _ = runs_in(workspace, seeds=1, deadline=time.monotonic() + 60, forecast=lambda trial: 30.0)
    runs.run()
    assert len(runs.results) == 3 and not runs.is_cut_short
    runs, printed = runs_in(workspace, deadline=time.monotonic(), forecast=lambda trial: 30.0)
    runs.run()
    assert len(runs.results) == 3 and runs.is_cut_short  # what is finished is read all the same
    assert "the time is up: 2 trials of this round are left out" in printed.getvalue()


def test_what_is_left_is_told_from_what_has_been(trainer: Trainer, workspace: Workspace) -> None:
    runs, _ = runs_in(workspace)
    trials = [Trial(1, 0), Trial(5, 0)]
    assert runs.seconds(trials) is None
    assert runs_in(workspace, forecast=lambda trial: 7.0)[0].seconds(trials) == 14.0
    runs.run()
    assert runs.seconds(trials) == 0  # they are there
    again, _ = runs_in(workspace)
    again.run()  # nothing has to be trained, so nothing is known but what the summaries say
    assert again.seconds([Trial(1, 7), Trial(5, 7)]) == pytest.approx(2 * WALL_S)
