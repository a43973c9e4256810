"""A run's folder when the run goes on: what it holds is what an uninterrupted run would have left."""

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

from rlstack.config.load import load_config
from rlstack.config.schema import RunConfig
from rlstack.errors import ConfigError
from rlstack.telemetry.log_files import FILES, cut_back, lengths
from rlstack.telemetry.metrics import is_timing
from rlstack.telemetry.recorder import Recorder
from rlstack.telemetry.run_dir import RunDirectory, num_steps_completed
from rlstack.telemetry.timing import PHASES, Stopwatch


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    config = load_config(None, ["policy.model=/model", "schedule.num_steps=6"])
    config.run.dir, config.run.name = str(tmp_path), "a"
    config.alarms.length_collapse.window = 2
    return config


def metrics(version: int) -> dict[str, Any]:
    """Of a run that collapses, and that is evaluated at version 2."""
    row = {"reward/mean": version / 10, "rollout/length_mean": 64.0 / 2**version, "grad_norm": math.nan}
    if version == 2:
        row |= {"eval/version": 2, "eval/accuracy": 0.5, "eval/notes/reward": None}
    return row | {"sync/bytes": 8} if version % 2 == 0 else row


def steps(recorder: Recorder, versions: range) -> None:
    for version in versions:
        recorder.samples([{"step": version, "text": "x"}])
        recorder.step(version, metrics(version))
        recorder.interval({"version": version, "before": None, "interval": 1})


def untimed(path: Path) -> dict[str, Any]:
    """What the files say but for times."""
    files = {
        name: [json.loads(line) for line in (path / name).read_text().splitlines()]
        for name in ("metrics.jsonl", "rollouts.jsonl", "alarms.jsonl", "intervals.jsonl")
    }
    files["metrics.jsonl"] = [
        {name: value for name, value in row.items() if not is_timing(name)} for row in files["metrics.jsonl"]
    ]
    summary = json.loads((path / "summary.json").read_text())
    timed = ("wall_s", "time_s", "roles", "resumed")
    return {**files, "summary": {name: value for name, value in summary.items() if name not in timed}}


def begin(recorder: Recorder) -> None:
    recorder.evaluated({"eval/version": 0, "eval/accuracy": 0.25, "eval/selection": 0.25})


def test_a_run_that_goes_on_leaves_what_an_uninterrupted_one_does(config: RunConfig, tmp_path: Path) -> None:
    config.run.name = "whole"
    with Recorder(config) as whole:
        begin(whole)
        steps(whole, range(1, 7))

    config.run.name = "parts"
    with pytest.raises(KeyboardInterrupt), Recorder(config) as first:
        begin(first)
        steps(first, range(1, 4))
        saved = json.loads(json.dumps([first.lengths(), first.state()]))
        steps(first, range(4, 6))
        raise KeyboardInterrupt
    with (tmp_path / "parts" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "rew')
    with Recorder(config, resume=True) as second:
        second.rewind(3, *saved)
        assert not (tmp_path / "parts" / "summary.json").exists()
        steps(second, range(4, 7))

    assert untimed(tmp_path / "parts") == untimed(tmp_path / "whole")
    summary = json.loads((tmp_path / "parts" / "summary.json").read_text())
    assert summary["resumed"] == [3]
    assert summary["accuracy_initial"] == 0.25
    assert len(summary["alarms"]) == 3
    assert summary["wall_s"] >= saved[1]["stopwatch"]["elapsed_s"]


def test_a_run_is_taken_back_while_it_goes_on_and_to_its_start(config: RunConfig, tmp_path: Path) -> None:
    with Recorder(config) as recorder:
        begin(recorder)
        steps(recorder, range(1, 3))
        saved = recorder.lengths(), recorder.state()
        steps(recorder, range(3, 5))
        recorder.rewind(2, *saved)
        assert [row["step"] for row in recorder.history.steps] == [1, 2]
        steps(recorder, range(3, 6))
        recorder.rewind(0, {}, {})
        undone = (tmp_path / "a" / "undone.1" / "metrics.jsonl").read_text().splitlines()
        assert [json.loads(line)["step"] for line in undone] == [*range(1, 6)]
        assert recorder.history.evaluations == {}
        begin(recorder)
        steps(recorder, range(1, 7))
        steps_logged = [row["step"] for row in recorder.history.steps]
    assert steps_logged == [row["step"] for row in untimed(tmp_path / "a")["metrics.jsonl"]] == [*range(1, 7)]
    assert json.loads((tmp_path / "a" / "summary.json").read_text())["resumed"] == [0]


def test_what_was_replaced_stays_on_record_whatever_is_undone(
    config: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    restart = {"role": "policy rank 0", "reason": "training: policy rank 0 died", "seconds": 2.25}
    restart |= {"node": None, "moved_to": None, "error": None, "failed": False}
    with Recorder(config) as recorder:
        steps(recorder, range(1, 3))
        recorder.restarted(restart)
        recorder.rewind(0, {}, {})
    (tmp_path / "a" / "checkpoints" / "step-00000001").mkdir(parents=True)
    with Recorder(config, resume=True) as recorder:
        recorder.rewind(0, {}, {})
        recorder.restarted(restart)
    rows = [{"step": 2, **restart}, {"step": 0, **restart}]
    assert [json.loads(row) for row in (tmp_path / "a" / "restarts.jsonl").read_text().splitlines()] == rows
    assert json.loads((tmp_path / "a" / "summary.json").read_text())["restarts"] == rows
    assert "policy rank 0 was replaced in 2.2 s: training: policy rank 0 died\n" in capsys.readouterr().out


def test_how_to_go_on_is_said_where_a_run_breaks_off(
    config: RunConfig, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(config.run.dir)
    with pytest.raises(RuntimeError), Recorder(config) as recorder:
        recorder.saved_step = 50
        raise RuntimeError("a rank died")
    printed = capsys.readouterr().out
    assert "saved up to step 50; to go on: rlstack train a/config.yaml --resume\n" in printed
    with Recorder(config):
        pass
    with pytest.raises(ConfigError), Recorder(config):
        raise ConfigError("data.tasks[0].reward = a:b: there is no such plug-in")  # which would be so again
    with pytest.raises(RuntimeError), Recorder(config, can_resume=False):
        raise RuntimeError("a rank died")
    assert "to go on" not in capsys.readouterr().out


@pytest.mark.parametrize(("save_every", "why"), [(50, "first checkpoint .* after step 50"), (None, "= null")])
def test_nothing_is_said_to_go_on_where_there_is_no_checkpoint(
    config: RunConfig, capsys: pytest.CaptureFixture[str], save_every: int | None, why: str
) -> None:
    config.schedule.save_every = save_every
    with pytest.raises(KeyboardInterrupt), Recorder(config) as recorder:
        steps(recorder, range(1, 3))
        raise KeyboardInterrupt
    printed = capsys.readouterr().out
    assert "--resume" not in printed
    assert re.search(f"there is nothing to go on from: .*{why}", printed)


def test_other_settings_are_refused_by_name_and_the_folder_is_free_again(config: RunConfig) -> None:
    RunDirectory.create(config).close()
    config.rollout.n += 1
    with pytest.raises(ConfigError, match=r"rollout\.n = 9: 8 is accepted with --resume"):
        RunDirectory.resume(config)
    config.rollout.n -= 1
    config.schedule.num_steps = 9
    run = RunDirectory.resume(config)
    run.write_summary({"status": "failed"})
    assert load_config(run.path / "config.yaml") != config
    run.cut_back({}, last_step=0)
    assert load_config(run.path / "config.yaml") == config
    assert not (run.path / "summary.json").exists()
    run.close()


def test_a_run_that_cannot_go_on_stays_as_it_is(config: RunConfig, tmp_path: Path) -> None:
    with Recorder(config) as recorder:
        begin(recorder)
        steps(recorder, range(1, 3))
    before = {path: path.read_bytes() for path in (tmp_path / "a").iterdir() if path.is_file()}
    (tmp_path / "a" / "checkpoints" / "step-00000002").mkdir(parents=True)
    config.schedule.num_steps = 9
    with pytest.raises(ConfigError), Recorder(config, resume=True) as recorder:
        recorder.rewind(2, {"metrics.jsonl": 1 << 30}, {})
    assert {path: path.read_bytes() for path in before} == before


def test_a_run_that_is_going_on_is_not_resumed(config: RunConfig) -> None:
    run = RunDirectory.create(config)
    with pytest.raises(ConfigError, match="a run of this name is going on"):
        RunDirectory.resume(config)
    run.close()


def test_a_run_that_was_never_begun_begins(config: RunConfig) -> None:
    run = RunDirectory.resume(config)
    assert (run.path / "config.yaml").exists()
    run.close()


def test_a_run_that_completed_goes_on_only_from_a_checkpoint(config: RunConfig) -> None:
    run = RunDirectory.create(config)
    assert num_steps_completed(run.path) == 0
    run.write_summary({"status": "stopped", "steps": 3})
    assert num_steps_completed(run.path) == 0
    run.write_summary({"status": "completed", "steps": 4})
    run.close()
    assert num_steps_completed(run.path) == 4
    with pytest.raises(ConfigError, match="has completed and left no checkpoint"):
        RunDirectory.resume(config)
    (run.checkpoints / "step-00000004").mkdir(parents=True)
    RunDirectory.resume(config).close()


def test_files_are_cut_to_the_lengths_that_they_had_and_a_missing_one_is_noticed(tmp_path: Path) -> None:
    (tmp_path / FILES[0]).write_text("one\n")
    before = lengths(tmp_path)
    for name in FILES[:2]:
        with (tmp_path / name).open("a") as file:
            file.write("two\nthr")
    cut_back(tmp_path, before)
    assert {name: (tmp_path / name).read_text() for name in FILES[:2]} == {FILES[0]: "one\n", FILES[1]: ""}
    with pytest.raises(ConfigError, match=rf"{FILES[0]}: has 4 bytes, and its run had written 5"):
        cut_back(tmp_path, {FILES[0]: 5})
    with pytest.raises(ConfigError, match=rf"{FILES[2]}: has 0 bytes"):
        cut_back(tmp_path, {FILES[2]: 1})
    assert (tmp_path / FILES[0]).read_text() == "one\n"


def test_a_stopwatch_that_goes_on_counts_what_was_before() -> None:
    watch = Stopwatch()
    watch.go_on(total_s={"train": 5.0, "gone": 1.0}, elapsed_s=60.0)
    assert watch.total_s["train"] == 5.0 and "gone" not in watch.total_s
    assert watch.elapsed_s >= 60.0
    assert watch.lap()["time/step_s"] < 60.0


def test_the_state_of_a_stopwatch_is_that_of_its_last_laps_end() -> None:
    watch = Stopwatch()
    with watch.phase("train"):
        pass
    first = watch.lap()
    with watch.phase("sync"):
        pass
    state = watch.state()
    assert state["total_s"] == dict.fromkeys(PHASES, 0.0) | {"train": first["time/train_s"]}
    assert state["elapsed_s"] <= watch.elapsed_s - watch.total_s["sync"]
