"""Named shared memory, which killed processes leave in /dev/shm. Needs the standard library alone."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

FOLDER = Path("/dev/shm")
# As Python's multiprocessing, vLLM, torch and NCCL call it: other files there may be somebody's model.
PREFIXES = ("psm_", "sem.mp-", "vllm_", "torch_", "nccl-")


@contextmanager
def removing_shared_memory(pids: Iterable[int]) -> Iterator[None]:
    """Remove the memory that the processes `pids` have now, at the end, if they have not done so."""
    used = {inode for pid in pids for inode in _used(pid)}
    paths = [path for path, inode in _named().items() if inode in used]
    try:
        yield
    finally:
        for path in paths:
            with suppress(OSError):  # whoever made it has removed it
                path.unlink()


def unused_shared_memory() -> list[str]:
    """The paths of this user's memory that no process uses any more."""
    if not (named := _named()):
        return []
    used = {inode for process in Path("/proc").glob("[0-9]*") for inode in _used(int(process.name))}
    return sorted(str(path) for path, inode in named.items() if inode not in used)


def _named() -> dict[Path, int]:
    """This user's files of shared memory with their inodes."""
    found = {}
    for path in FOLDER.glob("*"):
        with suppress(OSError):
            status = path.lstat()
            if path.name.startswith(PREFIXES) and status.st_uid == os.getuid():
                found[path] = status.st_ino
    return found


def _used(pid: int) -> Iterator[int]:
    """The inodes of what process `pid` has mapped, or has open, as a file is before it is mapped.

    Not the names, for a semaphore is mapped under the one that it had before it got its own.
    """
    with suppress(OSError):  # it has ended, or belongs to somebody else
        for line in Path(f"/proc/{pid}/maps").read_text(encoding="utf-8", errors="replace").splitlines():
            if f" {FOLDER}/" in line:
                yield int(line.split(maxsplit=5)[4])
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):  # it has been closed
                if os.readlink(descriptor).startswith(f"{FOLDER}/"):
                    yield descriptor.stat().st_ino
