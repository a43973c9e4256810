"""A disk that refuses: one error, what is saved, and how the run goes on."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import rlstack.train
from rlstack.checkpoint.run_state import RunState
from rlstack.cli import app
from rlstack.config.load import load_config
from rlstack.config.schema import RunConfig
from rlstack.errors import ConfigError
from rlstack.orchestration.roles import _was_bad_luck
from rlstack.telemetry import recorder as recorders
from rlstack.telemetry.recorder import Recorder
from rlstack.telemetry.run_dir import RunDirectory
from tests.unit.test_resume_loop import REGIMES, Runs, runs
from tests.unprivileged import NOBODY, as_neighbour

__all__ = ["runs"]  # a fixture


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    monkeypatch.setattr(recorders, "report", lambda *_, **__: None)
    return load_config(None, ["policy.model=/model", f"run.dir={tmp_path}", "run.name=a"])


def full(*arguments: object, **keywords: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def fill(recorder: Recorder) -> None:
    """Let the disk of metrics.jsonl be full."""
    recorder._run._metrics.close()
    recorder._run._metrics = open("/dev/full", "a", encoding="utf-8")  # noqa: SIM115


def test_a_checkpoint_that_finds_no_room_costs_none_before_it(
    runs: Runs, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    regime = REGIMES["with lag"]
    write = RunState.write

    def refuse(state: RunState, folder: Path) -> None:
        if state.step >= 6:
            full()
        write(state, folder)

    with monkeypatch.context() as patch:
        patch.setattr(RunState, "write", refuse)
        with pytest.raises(OSError, match=r"No space left on device: .*checkpoints") as raised:
            runs.train("full", *regime)
    notes = raised.value.__notes__
    assert notes[0] == "free some space, and go on as above"
    assert "saved up to step 4; to go on: rlstack train" in capsys.readouterr().out
    folder = runs.folder / "full"
    assert json.loads((folder / "summary.json").read_text())["status"] == "failed"
    assert [*(folder / "checkpoints" / ".step-00000006.part").iterdir()] == []
    runs.train("full", *regime, resume=True)
    runs.train("whole", *regime)
    assert runs.left("full") == runs.left("whole")


def test_a_first_checkpoint_that_fails_late_does_not_look_lost(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("rlstack.checkpoint.store.Manifest.write", full)
        with pytest.raises(OSError, match="No space left on device"):
            runs.train("full", *REGIMES["with lag"])
    runs.train("full", *REGIMES["with lag"], resume=True)
    assert (runs.folder / "full.1" / "metrics.jsonl").read_text().count("\n") > 2


def test_a_log_that_cannot_be_written_is_one_error_with_its_name(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(RunDirectory, "write_summary", full)
    monkeypatch.setattr("rlstack.telemetry.closing.write_traceback", full)
    with pytest.raises(OSError) as raised, Recorder(config) as recorder:
        recorder.saved_step = 3
        fill(recorder)
        recorder.step(4, {"reward/mean": 0.5})
    assert str(raised.value) == f"[Errno 28] No space left on device: '{tmp_path / 'a' / 'metrics.jsonl'}'"
    assert "free some space, and go on as above" in raised.value.__notes__
    printed = capsys.readouterr().out
    assert "summary.json could not be written: No space left on device" in printed
    assert "saved up to step 3; to go on" in printed
    RunDirectory.resume(config).close()  # the folder is free again


def test_a_run_whose_end_cannot_be_written_has_not_completed(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RunDirectory, "write_summary", full)
    with pytest.raises(OSError, match="No space left"), Recorder(config):
        pass


@pytest.mark.parametrize("call", ["mkdir", "open"])
def test_a_folder_that_takes_nothing_is_refused(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def refuse(path: Path, *arguments: object, **keywords: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr(Path, call, refuse)
    with pytest.raises(ConfigError, match=r"run.dir = .*Read-only file system: .*give a folder to write to"):
        Recorder(config)


IMPORTS = """
import sys
from rlstack.config.load import load_config
from rlstack.errors import ConfigError
from rlstack.orchestration.places import place_to_resume
"""
RESUME = """
for name in ("a", "b"):
    try:
        place_to_resume(load_config(None, [*sys.argv[1:], f"run.name={name}"]))
    except ConfigError as error:
        print(error)
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can start a process of another user")
def test_a_folder_that_takes_no_files_of_the_user_s_is_refused_before_anything_is_cut() -> None:
    with tempfile.TemporaryDirectory() as above:  # which a neighbour can get to, unlike tmp_path
        settings = ["policy.model=/model", f"run.dir={above}"]
        for name in ("a", "b"):
            RunDirectory.create(load_config(None, [*settings, f"run.name={name}"])).close()
            Path(above, name, "checkpoints").mkdir()
        for path in (Path(above), *Path(above).rglob("*")):
            os.chown(path, NOBODY, NOBODY)
        closed = (Path(above, "a"), Path(above, "b", "checkpoints"))
        for folder in closed:
            folder.chmod(0o500)
        found = as_neighbour(RESUME, *settings, imports=IMPORTS)
    assert found.stderr == ""
    for line, folder in zip(found.stdout.splitlines(), closed, strict=True):
        assert line.startswith(f"{folder}: takes no files of this user's, and the run goes on in it; nothing")


def test_another_process_does_no_better_on_a_full_disk() -> None:
    assert not _was_bad_luck(OSError(errno.ENOSPC, "No space left on device"))
    assert not _was_bad_luck(OSError(errno.EDQUOT, "Disk quota exceeded"))
    assert _was_bad_luck(OSError(errno.ECONNRESET, "Connection reset by peer"))


def test_the_command_prints_no_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quickstart = Path(__file__).parents[2] / "configs" / "quickstart.yaml"

    def train(config: RunConfig, **keywords: Any) -> None:
        with Recorder(config) as recorder:
            recorder.saved_step = 3
            fill(recorder)
            recorder.step(4, {"reward/mean": 0.5})

    monkeypatch.setattr(rlstack.train, "train", train)
    monkeypatch.setattr(recorders, "report", lambda *_, **__: None)
    done = CliRunner().invoke(app, ["train", str(quickstart), f"run.dir={tmp_path}", "run.name=a"])
    assert done.exit_code == 1
    assert "error: OSError: [Errno 28] No space left on device: " in done.output
    assert "Traceback" not in done.output
