"""Files that a reader sees whole or not at all, and folders that one process has for itself."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
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
