"""What watches a process of a run from within, and strikes at the moment of a fault.

The product has no hook for this: whoever starts a role is replaced by one that notes its spans and calls.
A fault strikes once, however often the run is taken up again: who makes its marker does it.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Sequence
from functools import wraps
from itertools import count
from pathlib import Path
from typing import Any

import psutil

from rlstack.telemetry import timeline
from tests.faults.faults import Action, Fault, Phase, Role

FOLDER = "RLSTACK_FAULTS_FOLDER"  # environment: where the processes of one run meet
FAULT = "RLSTACK_FAULTS_FAULT"  # environment: the fault as role, phase and action, in JSON; empty: none
MARKER = "struck.json"
SIGNALS = {Action.kill: signal.SIGKILL, Action.stall: signal.SIGSTOP}

# The processes that are not told about the harness are found below one that is.
BELOW = {
    Role.engine_worker: (Role.engine, ("VLLM::Worker", "spawn_main")),
    Role.verifier: (Role.driver, ("rlstack.rewards.math_worker",)),
}


def watch(role: Role) -> Striker:
    """Note every span of this process from now on, whose `role` in the run is known from here on, too."""
    striker = Striker(role, Path(os.environ[FOLDER]), as_fault(os.environ.get(FAULT, "")))
    begin = timeline.span.__enter__

    def enter(span: timeline.span) -> None:
        begin(span)
        striker.note(span._phase)

    timeline.span.__enter__ = enter  # type: ignore[method-assign]
    return striker


def note_calls(owner: type, method: str, striker: Striker) -> None:
    """Have each call of `owner`'s `method` in this process noted when it begins."""
    original = getattr(owner, method)

    @wraps(original)
    def noted(*args: Any, **kwargs: Any) -> Any:
        striker.note(f"{method}()")
        return original(*args, **kwargs)

    setattr(owner, method, noted)


def as_text(fault: Fault | None) -> str:
    return "" if fault is None else json.dumps(fault)


def as_fault(text: str) -> Fault | None:
    if not text:
        return None
    role, phase, action = json.loads(text)
    return Fault(Role(role), Phase(phase), Action(action))


class Striker:
    """Counts what happens in the process of `role`, and strikes when it is the moment of `fault`."""

    def __init__(self, role: Role, folder: Path, fault: Fault | None) -> None:
        self._folder = folder
        self._fault = fault
        self._is_watcher = fault is not None and fault.moment.watcher is role
        self._times = count(1)
        pid_file(folder, role).write_text(str(os.getpid()), encoding="utf-8")

    def note(self, event: str) -> None:
        """`event` begins."""
        if self._fault is None or not self._is_watcher or event != self._fault.moment.event:
            return
        if next(self._times) >= self._fault.moment.nth and not (self._folder / MARKER).exists():
            self._strike(self._fault)

    def _strike(self, fault: Fault) -> None:
        """Another may come first, and a victim that is being replaced is not there: the next time counts."""
        victim = find(fault.role, self._folder)
        if victim is None:
            return
        note = {"pid": victim.pid, "create_time": victim.create_time()}
        try:
            with (self._folder / MARKER).open("x", encoding="utf-8") as file:
                json.dump(note, file)
                file.flush()
        except FileExistsError:
            return
        victim.send_signal(SIGNALS[fault.action])


class Watched:
    """`target`, with each use of its methods noted."""

    def __init__(self, target: Any, striker: Striker) -> None:
        self._target = target
        self._striker = striker

    def __getattr__(self, name: str) -> Any:
        self._striker.note(f"{name}()")
        return getattr(self._target, name)


def find(role: Role, folder: Path) -> psutil.Process | None:
    """The process that is `role` now."""
    try:
        if role not in BELOW:
            return psutil.Process(int(pid_file(folder, role).read_text(encoding="utf-8")))
        above, marks = BELOW[role]
        parent = find(above, folder)
        below = parent.children(recursive=True) if parent is not None else []
        return next(
            (p for p in below if any(mark in " ".join((p.name(), *p.cmdline())) for mark in marks)), None
        )
    except (OSError, psutil.Error):
        return None


def _has_any(process: psutil.Process, marks: Sequence[str]) -> bool:
    words = " ".join((process.name(), *process.cmdline()))
    return any(mark in words for mark in marks)


def pid_file(folder: Path, role: Role) -> Path:
    return folder / f"{role.replace(' ', '-')}.pid"
