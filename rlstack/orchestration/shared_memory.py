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
    paths = {path for pid in pids for path in _used(pid)}
    try:
        yield
    finally:
        for path in paths:
            with suppress(OSError):  # whoever made it has removed it
                os.unlink(path)


def unused_shared_memory() -> list[str]:
    """The paths of this user's memory that no process uses any more."""
    found = {str(path) for path in FOLDER.glob("*") if path.name.startswith(PREFIXES) and _is_own(path)}
    if found:
        found -= {path for process in Path("/proc").glob("[0-9]*") for path in _used(int(process.name))}
    return sorted(found)


def _used(pid: int) -> Iterator[str]:
    with suppress(OSError):  # it has ended, or belongs to somebody else
        for line in Path(f"/proc/{pid}/maps").read_text(encoding="utf-8", errors="replace").splitlines():
            path = Path(line.split(maxsplit=5)[-1])
            if path.parent == FOLDER and path.name.startswith(PREFIXES):
                yield str(path)


def _is_own(path: Path) -> bool:
    try:
        return path.lstat().st_uid == os.getuid()
    except OSError:
        return False
