"""A Python process that is given a time limit and ends with it. Needs the standard library alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress

Process = subprocess.Popen[str]


def run(
    arguments: Sequence[str],
    *,
    limit_s: float,
    running: list[Process] | None = None,
    pass_fds: Sequence[int] = (),
) -> subprocess.CompletedProcess[str] | None:
    """This Python with `arguments`, in a session of its own that is killed at the limit; None then.

    Neither it nor a Python that it starts looks for modules in the working directory, which may hold files
    named like modules.

    running: gets the process once it has started.
    pass_fds: descriptors that it gets under the same numbers.
    """
    process = subprocess.Popen(
        [sys.executable, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONSAFEPATH": "1"},
        text=True,
        errors="replace",
        start_new_session=True,
        pass_fds=tuple(pass_fds),
    )
    if running is not None:
        running.append(process)
    try:
        out, err = process.communicate(timeout=limit_s)
    except BaseException as error:
        kill_all([process])
        process.wait()
        if isinstance(error, subprocess.TimeoutExpired):
            return None
        raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def kill_all(processes: Iterable[Process]) -> None:
    """End processes that `run` has started, with what they have started in their sessions."""
    for process in processes:
        if process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def last_line(text: str) -> str:
    """Of an error's output, which says what it was."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


def last_json(text: str) -> dict[str, object] | None:
    """The last line of what a process printed, if it is a JSON object."""
    try:
        found = json.loads(last_line(text))
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
