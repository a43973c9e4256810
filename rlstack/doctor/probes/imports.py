"""Imports that really happen, each in a process of its own: one may crash, be killed or never end."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed

from rlstack.child_process import Process, kill_all, last_line, run
from rlstack.doctor.facts import Imported

Say = Callable[[str], None]


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
            kill_all(running)
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
