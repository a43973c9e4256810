"""Ray's processes, found in /proc, and what killed runs have left; its token; with --start, a Ray."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

from rlstack.child_process import last_line, run
from rlstack.config.ray_token import mode_problem, token_problem
from rlstack.config.surroundings import temporary_folder
from rlstack.doctor.facts import Ray, RayProcess, RayStart
from rlstack.files import left_folders
from rlstack.orchestration.shared_memory import unused_shared_memory

RAYLET = "/ray/core/src/ray/raylet/raylet"


def look(*, start_within_s: float | None) -> Ray:
    """start_within_s: the limit within which one is started and ended; None: none is."""
    folder = temporary_folder()
    return Ray(
        folder=folder,
        leftovers=(*map(str, left_folders(folder)), *unused_shared_memory()),
        mode_problem=mode_problem(),
        token_problem=token_problem(),
        registered=_registered(Path(folder, "ray")),
        raylets=tuple(_raylets()),
        started=None if start_within_s is None else _start(start_within_s),
    )


def _registered(folder: Path) -> str | None:
    try:
        return (folder / "ray_current_cluster").read_text(encoding="utf-8", errors="replace").strip() or None
    except OSError:
        return None


def _raylets() -> Iterator[RayProcess]:
    for process in Path("/proc").iterdir():
        if not process.name.isdecimal():
            continue
        try:
            if RAYLET not in (process / "cmdline").read_text("utf-8", "replace").split("\0")[0]:
                continue
            lines = (process / "status").read_text("utf-8").splitlines()
        except OSError:  # it has ended, or belongs to somebody else
            continue
        status = dict(line.split(":", 1) for line in lines if ":" in line)
        yield RayProcess(
            pid=int(process.name),
            own=int(status["Uid"].split()[0]) == os.getuid(),
            driver=_driver(int(status["PPid"])),
        )


def _driver(parent: int) -> int | None:
    """What `ray start` leaves behind belongs to the first process, or to a user's systemd."""
    try:
        name = Path(f"/proc/{parent}/comm").read_text(encoding="utf-8").strip()
    except OSError:
        return None
    return None if parent == 1 or name == "systemd" else parent


def _start(limit_s: float) -> RayStart:
    started = time.perf_counter()
    done = run(["-m", "rlstack.doctor.start_ray"], limit_s=limit_s)
    seconds = time.perf_counter() - started
    if done is None:
        return RayStart(seconds=seconds, error=f"not within {limit_s:g} s")
    if done.returncode:
        return RayStart(seconds=seconds, error=last_line(done.stderr) or f"exit status {done.returncode}")
    return RayStart(seconds=seconds)
