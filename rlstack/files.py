"""Files that a reader sees whole or not at all, and folders that one process has for itself."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

# What keeps files from being written until somebody sees to it, by its error number.
DISK_REMEDIES = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space, or have the quota raised",
    errno.EFBIG: "have the limit on the size of files raised",
    errno.EROFS: "have the file system mounted for writing",
    errno.EACCES: "have the rights to write there restored",
    errno.EIO: "have the disk looked at",
}

PRIVATE_PREFIX = "rl-"  # of private folders: short, for the paths of sockets in them have a limit
PRIVATE_EXAMPLE = f"{PRIVATE_PREFIX}12345678"


@contextmanager
def written_at_once(path: Path) -> Iterator[TextIO]:
    """A file that is there, whole, once the context ends well, and that leaves nothing behind otherwise.

    Raises:
        OSError: it cannot be written there.
    """
    draft = path.with_name(f".{path.name}.part")
    try:
        draft.unlink(missing_ok=True)  # of a process that was killed; or a link, which would lead elsewhere
        # What UTF-8 has no form for, half of a surrogate pair, is written as the escape that JSON has for it.
        with draft.open("x", encoding="utf-8", errors="backslashreplace") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def cache_folder(name: str) -> Path:
    """The folder `name` for what later runs can use: below $XDG_CACHE_HOME/rlstack, or ~/.cache/rlstack."""
    given = os.environ.get("XDG_CACHE_HOME", "")  # a relative one is to be ignored, says its specification
    return Path(given if os.path.isabs(given) else os.path.expanduser("~/.cache")) / "rlstack" / name


def compile_privately() -> None:
    """Have torch keep what it compiles where nobody else writes: by default that has a known name in /tmp.

    To be called before torch is imported: it sets the variable to that name in a process that compiles, which
    hands it on to the roles; another name is the user's choice. Precompiled headers would go to the folder
    for temporary files whatever it says, and with it at the end of the run, so that each run would compile
    them anew.
    """
    folder, given = cache_folder("torchinductor"), os.environ.get("TORCHINDUCTOR_CACHE_DIR", "torchinductor_")
    if Path(given).name.startswith("torchinductor_"):
        with suppress(OSError):  # then it goes to the role's folder for temporary files
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder)
    os.environ.setdefault("TORCHINDUCTOR_CPP_CACHE_PRECOMPILE_HEADERS", "0")


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Give an OSError inside the name of `path` if it has none, as that of a write to an open file."""
    try:
        yield
    except OSError as error:
        if error.filename is not None or error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from None


def sync_to_disk(path: Path) -> None:
    """Have what was written to a file, or what a folder lists, outlive a loss of power. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def try_lock(folder: Path) -> int | None:
    """Hold `folder` until the descriptor returned is closed or this process ends, however it ends.

    Returns None if another process holds it.

    Raises:
        OSError: it cannot be opened.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


@contextmanager
def private_folder(place: str) -> Iterator[Path]:
    """Make a folder in `place` that no other user gets into; it is removed with all in it at the end.

    It is held as long as this process lives, which tells it from those that killed processes have left.
    """
    folder = Path(tempfile.mkdtemp(prefix=PRIVATE_PREFIX, dir=place))
    while (lock := try_lock(folder)) is None:
        time.sleep(0.01)  # somebody is looking for left_folders
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def left_folders(place: str) -> list[Path]:
    """This user's private folders in `place` whose processes have ended without removing them."""
    return [folder for folder in sorted(Path(place).glob(f"{PRIVATE_PREFIX}*")) if _is_left(folder)]


def _is_left(folder: Path) -> bool:
    try:
        found = folder.lstat()
        is_private = stat.S_ISDIR(found.st_mode) and stat.S_IMODE(found.st_mode) == 0o700
        if not is_private or found.st_uid != os.getuid() or len(folder.name) != len(PRIVATE_EXAMPLE):
            return False
        lock = try_lock(folder)
    except OSError:  # it has gone
        return False
    if lock is not None:
        os.close(lock)
    return lock is not None
