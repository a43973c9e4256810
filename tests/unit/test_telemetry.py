import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlstack.config.alarms import AlarmAction
from rlstack.config.load import load_config
from rlstack.config.schema import RunConfig
from rlstack.errors import ConfigError
from rlstack.telemetry.alarms import StoppedByAlarm
from rlstack.telemetry.clock import clock
from rlstack.telemetry.console import Console
from rlstack.telemetry.metrics import over_steps
from rlstack.telemetry.recorder import Recorder
from rlstack.telemetry.run_dir import RunDirectory, to_json
from rlstack.telemetry.summary import summarise
from rlstack.telemetry.timing import PHASES, Stopwatch


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    config = RunConfig()
    config.run.dir, config.run.name = str(tmp_path), "a"
    config.policy.model = "/model"
    return config


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def step(number: int, **metrics: float) -> dict[str, Any]:
    return {"step": number, "reward/mean": number / 10, "time/step_s": 1.0, **metrics}


def test_a_run_directory_holds_what_was_logged(config: RunConfig) -> None:
    run = RunDirectory.create(config)
    run.log_step({"step": 1, "reward/mean": np.float32(0.5), "grad_norm": math.nan})
    run.log_step({"step": 2, "tokens/trained": np.int64(7), "sync/verified": True})
    run.log_rollouts([{"step": 1, "text": "ü\n", "reward": None}])
    run.write_summary({"status": "completed", "tokens": {"trained": 7}})
    assert rows(run.path / "metrics.jsonl") == [
        {"step": 1, "reward/mean": 0.5, "grad_norm": None},
        {"step": 2, "tokens/trained": 7, "sync/verified": True},
    ]
    assert rows(run.path / "rollouts.jsonl") == [{"step": 1, "text": "ü\n", "reward": None}]
    assert json.loads((run.path / "summary.json").read_text())["tokens"] == {"trained": 7}
    assert load_config(run.path / "config.yaml") == config
    assert run.logs.is_dir()
    run.close()


def test_each_step_is_logged_once_and_in_order(config: RunConfig) -> None:
    run = RunDirectory.create(config)
    run.log_step({"step": 1})
    with pytest.raises(ValueError, match="step 1 comes after step 1"):
        run.log_step({"step": 1})
    run.close()


def test_an_undeclared_metric_is_refused(config: RunConfig) -> None:
    run = RunDirectory.create(config)
    with pytest.raises(ValueError, match="undeclared metrics reward/maen"):
        run.log_step({"step": 1, "reward/maen": 0.5})
    run.close()


def test_a_second_run_of_the_same_name_starts_afresh_and_the_first_is_kept(config: RunConfig) -> None:
    for number in range(3):
        run = RunDirectory.create(config)
        run.log_step({"step": number + 1})
        run.close()
    parent = run.path.parent
    assert run.moved_to == parent / "a.2"
    steps = {name: rows(parent / name / "metrics.jsonl") for name in ("a.1", "a.2", "a")}
    assert steps == {"a.1": [{"step": 1}], "a.2": [{"step": 2}], "a": [{"step": 3}]}


def test_a_run_that_is_going_on_is_not_moved_away(config: RunConfig) -> None:
    run = RunDirectory.create(config)
    with pytest.raises(ConfigError, match=r"run\.name = a: a run of this name is going on"):
        RunDirectory.create(config)
    run.close()


def test_a_folder_that_cannot_be_made_is_a_configuration_error(config: RunConfig, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    config.run.dir = str(tmp_path / "file")
    with pytest.raises(ConfigError, match=r"run\.dir = "):
        RunDirectory.create(config)


@given(st.recursive(st.floats() | st.integers() | st.text() | st.booleans() | st.none(), st.lists))
def test_json_has_null_for_what_is_not_finite(value: Any) -> None:
    def expected(value: Any) -> Any:
        if isinstance(value, list):
            return [expected(item) for item in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    assert json.loads(to_json(value)) == expected(value)


def test_what_is_not_data_is_not_written_as_json() -> None:
    with pytest.raises(TypeError, match="cannot be written"):
        to_json({"a": object()})


@pytest.mark.parametrize(
    ("name", "total"),
    [
        ("tokens/generated", 6),
        ("mismatch/logprob_abs_max", 3),
        ("reward/mean", 2),
        ("lr", 2),
        ("sync/verified", 1),
    ],
)
def test_steps_become_one_number_by_the_metrics_reduction(name: str, total: float) -> None:
    assert over_steps(name, [{name: 1}, {}, {name: 3}, {name: None}, {name: 2}]) == total


def test_a_metric_that_no_step_has_is_none() -> None:
    assert over_steps("lr", [{}, {"lr": None}]) is None


def test_a_summary_of_a_completed_run() -> None:
    steps = [
        step(1, **{"tokens/generated": 10, "tokens/trained": 4, "mismatch/logprob_abs_max": 1e-6}),
        step(2, **{"tokens/generated": 20, "tokens/trained": 5, "sync/bytes": 100}),
    ]
    evaluations = {
        version: {"eval/accuracy": accuracy, "eval/selection": accuracy}
        for version, accuracy in ((0, 0.4), (2, 0.7))
    }
    spent = dict.fromkeys(PHASES, 2.0)
    summary = summarise(steps, status="completed", evaluations=evaluations, wall_s=25.0, phase_s=spent)
    assert summary == {
        "status": "completed",
        "steps": 2,
        "reward_first20": pytest.approx(0.15),
        "reward_last20": pytest.approx(0.15),
        "accuracy_initial": 0.4,
        "accuracy_final": 0.7,
        "wall_s": 25.0,
        "time_s": {**spent, "other": 15.0},
        "tokens": {"generated": 30, "trained": 9},
        "syncs": 1,
        "mismatch_logprob_abs_max": 1e-6,
        "best": {"version": 2, "value": 0.7},
        "evaluations": [evaluations[0], evaluations[2]],
    }


def test_the_best_version_is_the_first_of_those_that_lead_and_may_be_unknown() -> None:
    evaluations = {v: {"eval/selection": value} for v, value in {4: 0.7, 2: 0.7, 0: 0.4}.items()}
    evaluations[6] = {}
    summary = summarise([], status="completed", evaluations=evaluations, wall_s=1.0, phase_s={})
    assert summary["best"] == {"version": 2, "value": 0.7}
    assert summary["accuracy_initial"] is None
    none = summarise([], status="completed", evaluations={0: {}}, wall_s=1.0, phase_s={})
    assert none["best"] is None


def test_the_windows_of_the_reward_are_twenty_steps_at_either_end() -> None:
    steps = [step(number) for number in range(1, 51)]
    summary = summarise(steps, status="failed", evaluations={}, wall_s=1.0, phase_s={})
    assert summary["reward_first20"] == pytest.approx(1.05)
    assert summary["reward_last20"] == pytest.approx(4.05)


def test_a_run_without_a_step_has_a_summary_too() -> None:
    evaluations = {0: {"eval/accuracy": 0.4}}
    summary = summarise([], status="interrupted", evaluations=evaluations, wall_s=3.0, phase_s={})
    assert (summary["accuracy_initial"], summary["accuracy_final"]) == (0.4, None)
    assert (summary["steps"], summary["reward_last20"], summary["tokens"]["trained"]) == (0, None, 0)


def test_a_stopwatch_counts_phases_by_lap_and_in_total() -> None:
    watch = Stopwatch()
    with watch.phase("train"):
        pass
    with pytest.raises(KeyError), watch.phase("train"):
        raise KeyError
    first, second = watch.lap(), watch.lap()
    assert 0 < first["time/train_s"] <= first["time/step_s"]
    assert second["time/train_s"] == 0
    assert watch.total_s["train"] == first["time/train_s"]
    assert watch.elapsed_s >= first["time/step_s"] + second["time/step_s"]
    assert first.keys() == {"time/step_s", *(f"time/{name}_s" for name in PHASES)}


def test_a_lap_that_begins_inside_a_phase_has_the_rest_of_it_only() -> None:
    watch = Stopwatch()
    with watch.phase("evaluate"):
        watch.lap()
    lap = watch.lap()
    assert lap["time/evaluate_s"] <= lap["time/step_s"]
    assert lap["time/evaluate_s"] < watch.total_s["evaluate"]


def test_captured_output_is_the_processs_and_its_childrens(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "role.log"
    code = f"""
import os, subprocess, sys
from pathlib import Path
from rlstack.telemetry.logs import capture_output
capture_output(Path({str(log)!r}))
print("printed")
os.write(1, b"written\\n")
subprocess.run(["echo", "by a child"])
print("to stderr", file=sys.stderr)
os._exit(0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")
    assert log.read_text().splitlines() == ["printed", "written", "by a child", "to stderr"]


def test_a_line_per_step_on_a_plain_output(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(num_steps=120)
    with console.phase("starting engines"):
        pass
    metrics = {
        "pairs/formed": 13,
        "policy/entropy": 0.4,
        "rollout/length_mean": 21.0,
        "mismatch/logprob_abs_max": 4e-6,
        "sync/version": 10,
        "sync/pause_s": 0.08,
        "eval/accuracy": 0.5,
        "eval/version": 10,
        "eval/fractions/accuracy": 0.5,
        "eval/fractions/reward": 0.5,
        "eval/notes/reward": -1.25,
        "reward/timeouts": 2,
    }
    console.step(step(9))
    console.step(step(10, **metrics))
    started, ended, _, line = capsys.readouterr().out.splitlines()
    assert started == "starting engines ..."
    assert ended.startswith("starting engines: ")
    assert line == (
        "step  10/120  reward 1.000 (0.950)  pairs 13  entropy 0.400  length 21.0  mismatch 4e-06  1.00 s  "
        "ETA 1:50  sync v10 0.08 s  accuracy v10 0.500  notes reward v10 -1.250  "
        "reward/timeouts 2"
    )


def test_a_step_whose_metrics_are_missing_still_has_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    Console(num_steps=1).step({"step": 1, "time/step_s": 0.5})
    assert capsys.readouterr().out == "step 1/1  0.50 s  ETA 0:00\n"


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (3700, "1:01:40")])
def test_a_clock_shows_minutes_and_seconds_and_hours_where_there_are_any(seconds: float, text: str) -> None:
    assert clock(seconds) == text


@pytest.mark.parametrize(
    ("error", "status"),
    [(None, "completed"), (RuntimeError("a rank died"), "failed"), (KeyboardInterrupt(), "interrupted")],
)
def test_however_a_run_ends_its_summary_says_so(
    config: RunConfig, capsys: pytest.CaptureFixture[str], error: BaseException | None, status: str
) -> None:
    config.schedule.num_steps = 1
    try:
        with Recorder(config) as recorder:
            recorder.evaluated({"eval/accuracy": 0.4, "eval/accuracy_stderr": 0.1, "eval/version": 0})
            with recorder.phase("reward"):
                recorder.samples([{"text": "x"}])
            recorder.step(1, {"reward/mean": 0.25})
            recorder.evaluated({"eval/accuracy": 0.5, "eval/accuracy_stderr": 0.1, "eval/version": 1})
            if error is not None:
                raise error
    except (RuntimeError, KeyboardInterrupt) as raised:
        assert raised is error
    path = Path(config.run.dir) / "a"
    summary = json.loads((path / "summary.json").read_text())
    assert (summary["status"], summary["steps"], summary["reward_first20"]) == (status, 1, 0.25)
    assert (summary["accuracy_initial"], summary["accuracy_final"]) == (0.4, None if error else 0.5)
    assert summary["versions"]["ray"]
    assert summary["hardware"]["num_cores"] == len(os.sched_getaffinity(0))
    assert rows(path / "metrics.jsonl")[0]["reward/mean"] == 0.25
    assert f"{status} after 1 steps" in capsys.readouterr().out
    log = path / "logs" / "error.log"
    assert log.exists() == (status == "failed")
    if status == "failed":
        assert "RuntimeError: a rank died" in log.read_text()
        assert error is not None
        assert error.__notes__ == [f"the traceback is in {log}"]


def test_what_an_alarm_says_is_on_the_terminal_in_its_own_file_and_in_the_summary(
    config: RunConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    collapse, divergence = config.alarms.length_collapse, config.alarms.divergence
    collapse.window, collapse.action = 1, AlarmAction.lower_lr
    divergence.max_grad_norm, divergence.action = 5.0, AlarmAction.stop
    path = Path(config.run.dir) / "a"
    with pytest.raises(StoppedByAlarm) as stopped, Recorder(config) as recorder:
        first = recorder.step(1, {"rollout/length_mean": 40.0})
        assert (first.lr_factor, first.stop) == (1, None)
        assert not (path / "alarms.jsonl").exists()
        second = recorder.step(2, {"rollout/length_mean": 10.0, "grad_norm": 7.5})
        assert (second.lr_factor, second.stop) == (0.5, "divergence: grad_norm is 7.5, above 5")
        raise StoppedByAlarm(second.stop)
    assert stopped.value.__notes__ == [f"the model as it was then is in {path / 'model'}"]
    reason = "rollout/length_mean is 10 over 1 steps, in tokens: below 0.5 of the start's 40"
    expected = [
        {
            "step": 2,
            "alarm": "length_collapse",
            "action": "lower_lr",
            "reason": reason,
            "lr_factor": 0.5,
        },
        {
            "step": 2,
            "alarm": "divergence",
            "action": "stop",
            "reason": "grad_norm is 7.5, above 5",
            "lr_factor": 1.0,
        },
    ]
    assert rows(path / "alarms.jsonl") == expected
    summary = json.loads((path / "summary.json").read_text())
    assert (summary["status"], summary["steps"], summary["alarms"]) == ("stopped", 2, expected)
    assert not (path / "logs" / "error.log").exists()
    printed = capsys.readouterr().out
    assert f"ALARM length_collapse (lower_lr x 0.5): {reason}\n" in printed
    assert "ALARM divergence (stop): grad_norm is 7.5, above 5\n" in printed
    assert "stopped after 2 steps" in printed


def test_a_choice_of_the_interval_is_in_its_own_file_and_in_the_summary_and_a_change_on_the_terminal(
    config: RunConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    start = {"version": 0, "until": 10, "before": None, "interval": 10, "reason": "start"}
    kept = {"version": 10, "until": 20, "before": 10, "interval": 10, "reason": "drift"}
    changed = {"version": 20, "until": 26, "before": 10, "interval": 6, "reason": "too much drift"}
    path = Path(config.run.dir) / "a"
    with Recorder(config) as recorder:
        recorder.interval(None)  # what a schedule says that decides nothing
        assert not (path / "intervals.jsonl").exists()
        for decision in (start, kept, changed):
            recorder.interval(decision)
        recorder.step(1, {"reward/mean": 0.25})
        assert [row["reward/mean"] for row in recorder.history.steps] == [0.25]
    assert rows(path / "intervals.jsonl") == [start, kept, changed]
    assert json.loads((path / "summary.json").read_text())["intervals"] == [start, kept, changed]
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("s ")]
    assert lines == ["s 10 -> 6 from version 20 on: too much drift"]
