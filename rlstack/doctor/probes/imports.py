"""Imports that really happen, each in a process of its own: one may crash, be killed or never end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress

from rlstack.doctor.facts import Imported

Say = Callable[[str], None]
Process = subprocess.Popen[str]


def look(statements: Mapping[str, str], *, limit_s: float, say: Say) -> tuple[Imported, ...]:
    """Import each of `statements`, by the name of its check, as many at a time as there are cores.

    say: is told what has been imported.
    """
    running: list[Process] = []
    done: dict[str, Imported] = {}
    with ThreadPoolExecutor(max_workers=len(os.sched_getaffinity(0))) as pool:
        waiting = [pool.submit(_imported, *pair, limit_s, running) for pair in statements.items()]
        say(f"importing {', '.join(statements)}")
        try:
            for future in as_completed(waiting):
                found = future.result()
                done[found.name] = found
                left = [name for name in statements if name not in done]
                say(f"{found.name} took {found.seconds:.0f} s; left: {', '.join(left) or 'none'}")
        except BaseException:  # Ctrl-C, which does not reach sessions of their own
            pool.shutdown(wait=False, cancel_futures=True)
            for process in running:
                _kill(process)
            raise
    return tuple(done[name] for name in statements)


def _imported(name: str, statement: str, limit_s: float, running: list[Process]) -> Imported:
    started = time.perf_counter()
    done = run(["-c", statement], limit_s=limit_s, running=running)
    seconds = time.perf_counter() - started
    if done is None:
        return Imported(name=name, statement=statement, seconds=seconds, timed_out=True)
    if done.returncode < 0:
        died_of = signal.Signals(-done.returncode).name
        return Imported(name=name, statement=statement, seconds=seconds, signal=died_of)
    error = last_line(done.stderr) or f"exit status {done.returncode}" if done.returncode else None
    return Imported(name=name, statement=statement, seconds=seconds, error=error)


def run(
    arguments: list[str], *, limit_s: float, running: list[Process] | None = None
) -> subprocess.CompletedProcess[str] | None:
    """This Python with `arguments`, in a session of its own that is killed at the limit; None then.

    running: gets the process once it has started.
    """
    process = subprocess.Popen(
        [sys.executable, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    if running is not None:
        running.append(process)
    try:
        out, err = process.communicate(timeout=limit_s)
    except BaseException as error:
        _kill(process)
        process.wait()
        if isinstance(error, subprocess.TimeoutExpired):
            return None
        raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def _kill(process: Process) -> None:
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
