"""What libraries write to descriptor 2 is in the log, and everything of Python's on the terminal."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

APART = """
import os, subprocess, sys, warnings
from pathlib import Path
from rlstack.telemetry.standard_error import descriptor, libraries_to, set_apart
set_apart()
set_apart()
log = Path(sys.argv[1])
"""


def run(code: str, log: Path, *, status: int = 0, setup: str = APART) -> str:
    """Standard error of a process with this code."""
    done = subprocess.run([sys.executable, "-c", setup + code, log], capture_output=True, text=True)
    assert done.returncode == status, done.stderr
    return done.stderr


def test_libraries_write_to_the_log_and_python_to_the_terminal(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "driver.log"
    shown = run(
        """
with libraries_to(log):
    os.write(2, b"[c10d] the hostname cannot be retrieved\\n")
    subprocess.run(["sh", "-c", "echo vllm >&2"])
    subprocess.run(["sh", "-c", "echo own reward >&2"], stderr=descriptor())
    print("error: a line of ours", file=sys.stderr)
    warnings.warn("of Python")
os.write(2, b"after it\\n")
""",
        log,
    )
    assert log.read_text() == "[c10d] the hostname cannot be retrieved\nvllm\n"
    assert "own reward\nerror: a line of ours\n" in shown and "UserWarning: of Python" in shown
    assert shown.endswith("after it\n")


def test_a_traceback_is_shown_and_an_empty_log_goes(tmp_path: Path) -> None:
    log = tmp_path / "driver.log"
    shown = run("with libraries_to(log):\n    1 / 0\n", log, status=1)
    assert "ZeroDivisionError: division by zero" in shown
    assert not log.exists()


def test_a_thread_s_traceback_is_shown_while_the_log_is_written(tmp_path: Path) -> None:
    log = tmp_path / "driver.log"
    shown = run(
        """
import threading
with libraries_to(log):
    thread = threading.Thread(target=lambda: 1 / 0)
    thread.start()
    thread.join()
    os.write(2, b"raw\\n")
""",
        log,
    )
    assert "ZeroDivisionError" in shown and log.read_text() == "raw\n"


def test_a_program_that_uses_the_library_keeps_its_standard_error(tmp_path: Path) -> None:
    log = tmp_path / "driver.log"
    setup = APART.replace("set_apart()\nset_apart()\n", "")
    shown = run("with libraries_to(log):\n    os.write(2, b'of C++\\n')\n", log, setup=setup)
    assert shown == "of C++\n" and not log.exists()


def test_a_closed_standard_error_is_no_error(tmp_path: Path) -> None:
    command = [sys.executable, "-c", APART + "print(sys.stderr)", tmp_path / "log"]
    done = subprocess.run(["sh", "-c", 'exec "$@" 2>&-', "sh", *command], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "None\n")
