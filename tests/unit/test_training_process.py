"""Runs in processes of their own: exit status, output, Ctrl-C, a parent that dies, what is finished."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from rlstack.config.load import dump_config, load_config
from rlstack.tuning import training_process
from rlstack.tuning.training_process import is_finished, last_words, train_in_process, wait_until_free

QUICKSTART = Path(__file__).parents[2] / "configs" / "quickstart.yaml"
ENDS_WELL = """
import pathlib, signal, sys, time
def end(*_):
    print("interrupted", flush=True)
    time.sleep(0.3)
    sys.exit(130)
signal.signal(signal.SIGINT, end)
pathlib.Path(sys.argv[-1]).touch()
time.sleep(60)
"""


def test_the_exit_status_and_the_output_are_the_commands(tmp_path: Path) -> None:
    log = tmp_path / "run.log"
    assert train_in_process(tmp_path / "none.yaml", [], log=log) == 2
    assert last_words(log) == f"{tmp_path}/none.yaml: there is no such file; give the path of a YAML file"


def test_an_interrupt_lets_the_run_end_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_process, "START", ENDS_WELL)
    started, log = tmp_path / "started", tmp_path / "run.log"

    def interrupt() -> None:
        if started.exists():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_in_process(started, [], log=log, watch=interrupt)
    assert log.read_text() == "interrupted\n"


def test_a_run_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    """However that ends: here it is killed."""
    started, log = tmp_path / "started", tmp_path / "run.log"
    watched = "import sys; from rlstack.tuning.training_process import end_with; end_with(int(sys.argv[1]))"
    child = f"{watched}\n{ENDS_WELL}"
    parent = (
        "from pathlib import Path; from rlstack.tuning import training_process as t; "
        f"t.START = {child!r}; t.train_in_process(Path({str(started)!r}), [], log=Path({str(log)!r}))"
    )
    process = subprocess.Popen([sys.executable, "-c", parent])
    try:
        wait_until(started.exists)
        (run,) = psutil.Process(process.pid).children()
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        run.wait(10)
    finally:
        process.kill()
    assert log.read_text() == "interrupted\n"


def wait_until(condition, limit_s=30.0) -> None:
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("printed", "words"),
    [
        ("step 1\nerror: RoleError: a rank died\nthe traceback is in x\n", "RoleError: a rank died"),
        ("step 1\nKilled\n\n", "Killed"),
        ("", "it printed nothing"),
    ],
)
def test_the_last_words_are_the_error_or_the_last_line(tmp_path: Path, printed: str, words: str) -> None:
    (tmp_path / "run.log").write_text(printed)
    assert last_words(tmp_path / "run.log") == words


def test_a_folder_is_waited_for_until_the_run_in_it_has_ended(tmp_path: Path) -> None:
    wait_until_free(tmp_path / "none")
    descriptor = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)  # as a run's does
    closing = threading.Timer(0.6, os.close, [descriptor])
    started = time.monotonic()
    closing.start()
    wait_until_free(tmp_path)
    assert time.monotonic() - started >= 0.6
    wait_until_free(tmp_path, limit_s=0.0)


def test_only_a_finished_run_of_the_same_settings_is_finished(tmp_path: Path) -> None:
    overrides = ["run.name=test", f"run.dir={tmp_path}", "run.seed=3"]
    folder = tmp_path / "test"
    folder.mkdir()
    (folder / "config.yaml").write_text(dump_config(load_config(QUICKSTART, overrides)))
    assert not is_finished(QUICKSTART, overrides)
    for status, finished in (
        ("completed", True),
        ("stopped", True),
        ("failed", False),
        ("interrupted", False),
    ):
        (folder / "summary.json").write_text(json.dumps({"status": status}))
        assert is_finished(QUICKSTART, overrides) is finished
    (folder / "summary.json").write_text(json.dumps({"status": "completed"}))
    assert not is_finished(QUICKSTART, [*overrides, "optimizer.lr=1e-3"])
