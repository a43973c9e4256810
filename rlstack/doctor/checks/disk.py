"""Where a run writes."""

from __future__ import annotations

from collections.abc import Iterator

from rlstack.doctor.facts import Facts, Folder
from rlstack.doctor.finding import Verdict, note, ok, problem

LEAST_GIB = 1.0  # logs, rollouts and the report; in the temporary folder Ray's session
RAY_FULL_SHARE = 0.95  # of a file system, above which Ray does not spill objects to it


def run_folder(facts: Facts) -> Iterator[Verdict]:
    """Whether run.dir can be written to."""
    yield from _writable(facts.disk.runs, "run.dir=FOLDER names another one")


def temporary_folder(facts: Facts) -> Iterator[Verdict]:
    """Whether the folder for temporary files can be written to."""
    yield from _writable(facts.disk.temporary, "export TMPDIR=FOLDER, a short path on a local disk")


def space(facts: Facts) -> Iterator[Verdict]:
    """Room for what a run leaves, checkpoints included as far as CONFIG says how large they are."""
    folder = facts.disk.runs
    checkpoints = facts.settings.checkpoints_gib if facts.settings is not None else None
    needed = LEAST_GIB + (checkpoints or 0.0)
    why = "" if checkpoints is None else f" ({_size(checkpoints)} for checkpoints and the model)"
    remedy = "run.dir=FOLDER names another disk; checkpoint.keep_last and keep_best say what is kept"
    yield from _room(folder, needed, why, remedy)


def temporary_space(facts: Facts) -> Iterator[Verdict]:
    """Room where Ray keeps its session and what it spills."""
    folder = facts.disk.temporary
    yield from _room(folder, LEAST_GIB, "", "export TMPDIR=FOLDER, a short path on a local disk")
    if folder.used_share > RAY_FULL_SHARE and folder.free_gib is not None and folder.free_gib >= LEAST_GIB:
        yield note(
            f"{folder.path}: {folder.used_share:.0%} full; Ray warns above {RAY_FULL_SHARE:.0%}, and keeps "
            "no objects there that do not fit in memory",
            "export RAY_TMPDIR=FOLDER, a short path on a disk with more room",
        )


def _writable(folder: Folder, remedy: str) -> Iterator[Verdict]:
    if folder.error is not None:
        yield problem(f"{folder.path} cannot be written to ({folder.error})", remedy)
    else:
        yield ok(folder.path)


def _room(folder: Folder, needed: float, why: str, remedy: str) -> Iterator[Verdict]:
    if folder.free_gib is None:
        return
    found = f"{_size(folder.free_gib)} free in {folder.path}"
    if folder.free_gib < needed:
        yield problem(f"{found}, {_size(needed)} needed{why}", remedy)
    elif folder.is_out_of_files:
        yield problem(f"{found}, but no inode: no file can be made there", remedy)
    else:
        yield ok(f"{found}, {_size(needed)} needed{why}")


def _size(gib: float) -> str:
    return f"{gib:.1f} GiB" if gib >= 1 else f"{gib * 1024:.0f} MiB"
