"""`rlstack train` in a process of its own, so that one run cannot disturb the next, and who runs several."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rlstack.config.load import load_config, load_stored
from rlstack.errors import ConfigError, for_terminal
from rlstack.files import try_lock
from rlstack.telemetry.curves import read_summary

FINISHED = ("completed", "stopped")  # stopped: by an alarm, as it would be again
POLL_S = 0.5
START = (
    "import sys; from rlstack.tuning.training_process import end_with; end_with(int(sys.argv.pop(1))); "
    "from rlstack.cli import main; main()"
)


def train_in_process(
    config: Path, overrides: Sequence[str], *, log: Path, watch: Callable[[], None] = lambda: None
) -> int:
    """The exit status of `rlstack train`; what it prints goes to `log`, and `watch` is called now and then.

    An interrupt here interrupts the run, once, and is raised again when the run has ended its processes.
    """
    command = [sys.executable, "-P", "-c", START, str(os.getpid()), "train", str(config), *overrides]
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        while True:
            try:
                return process.wait(POLL_S)
            except subprocess.TimeoutExpired:
                watch()
    except BaseException:
        _end(process)
        raise


def _end(process: subprocess.Popen[bytes], *, limit_s: float = 60.0) -> None:
    """Interrupt the run as Ctrl-C would; after `limit_s`, or at a second Ctrl-C, kill what is left of it."""
    process.send_signal(signal.SIGINT)
    try:
        process.wait(limit_s)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def end_with(parent: int) -> None:
    """Let this process be interrupted, once, when its parent of that process id dies, however it does.

    Linux's own way, prctl(PR_SET_PDEATHSIG), sends the signal for every thread of the parent that dies.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(POLL_S)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=watch, daemon=True, name="end-with-parent").start()


def wait_until_free(folder: Path, *, limit_s: float = 60.0) -> None:
    """Wait for a run that is about to end in `folder`: one whose parent was killed takes some seconds to."""
    end = time.monotonic() + limit_s
    while folder.exists() and _is_held(folder) and time.monotonic() < end:
        time.sleep(POLL_S)


def _is_held(folder: Path) -> bool:
    descriptor = try_lock(folder)
    if descriptor is not None:
        os.close(descriptor)
    return descriptor is None


def is_finished(config: Path, overrides: Sequence[str]) -> bool:
    """Whether the run's folder holds a finished run of these very settings."""
    wanted = load_config(config, overrides)
    folder = Path(wanted.run.dir) / wanted.run.name
    try:
        return read_summary(folder)["status"] in FINISHED and load_stored(folder / "config.yaml") == wanted
    except (OSError, ConfigError):
        return False


def last_words(log: Path) -> str:
    """What a run that failed said of it: the last line of its output that begins with "error:", or any."""
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return for_terminal((errors or lines or ["it printed nothing"])[-1])
