"""rollouts.jsonl and its shards: rollouts-000001.jsonl.gz and so on, which hold what was written before it.

A shard is rollouts.jsonl under another name until it has been compressed: a process may die at any time.
"""

from __future__ import annotations

import gzip
import logging
import os
import re
import shutil
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

from rlstack.files import naming
from rlstack.telemetry.curves import decompressing, read_rows

ROLLOUTS = "rollouts.jsonl"
SHARDS = "rollouts.shards"  # in a checkpoint's positions: the number of the last shard, where there is one
SHARD_BYTES = 256 << 20  # of rollouts.jsonl, from which on it becomes a shard
MIN_SHARDS = 4  # that a run's limit has room for
_NAME = re.compile(r"rollouts-(\d{6,})\.jsonl(?:\.gz)?")
_LEVEL = 1  # of gzip: half the size of a higher one's at a fifth of its time

logger = logging.getLogger(__name__)


class RolloutLog:
    """Writes rollouts.jsonl; what is older is compressed in a thread, and removed above a limit."""

    def __init__(self, folder: Path, *, max_gib: float) -> None:
        """max_gib: of rollouts.jsonl and its shards; of these the newest one is never removed."""
        self._path = folder / ROLLOUTS
        self._max_bytes = int(max_gib * 2**30)
        self._shard_bytes = min(SHARD_BYTES, self._max_bytes // MIN_SHARDS)
        self._file = self._path.open("a", encoding="utf-8")
        self._packing: threading.Thread | None = None
        self._has_warned = False

    def write(self, lines: Iterable[str]) -> None:
        """Append `lines`, which end in newlines. Raises OSError."""
        with naming(self._path):
            if os.fstat(self._file.fileno()).st_size >= self._shard_bytes:
                self._begin_shard()
            self._file.writelines(lines)
            self._file.flush()

    def settle(self) -> None:
        """Wait until no shard is being compressed."""
        if self._packing is not None:
            self._packing.join()

    def reopen(self) -> None:
        """Go on in the file that has the name now."""
        self._file.close()
        self._file = self._path.open("a", encoding="utf-8")

    def close(self) -> None:
        """Close the file; what is being compressed is finished."""
        self.settle()
        self._file.close()

    def _begin_shard(self) -> None:
        self.settle()
        number = max(shards(self._path.parent), default=0) + 1
        self._path.rename(self._path.with_name(f"rollouts-{number:06d}.jsonl"))
        self.reopen()
        self._packing = threading.Thread(target=self._pack, name="rollout-shards")
        self._packing.start()

    def _pack(self) -> None:
        try:
            for path in sorted(self._path.parent.glob("rollouts-*.jsonl")):
                if _NAME.fullmatch(path.name):
                    _compress(path)
            self._remove_oldest()
        except OSError as error:
            logger.warning("%s: shards are left as they are: %s", self._path.parent, error)

    def _remove_oldest(self) -> None:
        *older, newest = shards(self._path.parent).values()
        num_bytes = sum(path.stat().st_size for path in (self._path, *older, newest))
        for path in older:
            if num_bytes <= self._max_bytes:
                return
            num_bytes -= path.stat().st_size
            path.unlink()
            if not self._has_warned:
                self._has_warned = True
                logger.warning(
                    "%s: the oldest rollouts are removed from here on, above telemetry.rollouts_max_gib = "
                    "%g; raise it, or log fewer with telemetry.rollouts=sample:N",
                    self._path.parent,
                    self._max_bytes / 2**30,
                )


def shards(folder: Path) -> dict[int, Path]:
    """The shards in `folder` by their numbers, which rise; compressed ones where there is either form."""
    found = {}
    for path in sorted(folder.glob("rollouts-*.jsonl*")):  # .jsonl comes before .jsonl.gz
        if match := _NAME.fullmatch(path.name):
            found[int(match[1])] = path
    return dict(sorted(found.items()))


def read_rollouts(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of the rollouts.jsonl at `path` and of the shards beside it, in the order of writing.

    Raises OSError if there is no such file, ConfigError for a line that is not a JSON object.
    """
    for shard in shards(path.parent).values():
        try:
            yield from read_rows(shard)
        except FileNotFoundError:  # it has been compressed meanwhile
            yield from read_rows(shard.with_name(f"{shard.name}.gz"))
    yield from read_rows(path)


def num_bytes(path: Path) -> int:
    """Of the rollouts.jsonl at `path` and of the shards beside it, uncompressed; 0 if there is none."""
    files = [*shards(path.parent).values(), path]
    return sum(_size(file) for file in files if file.exists())


def size_after(folder: Path, num_shards: int) -> int | None:
    """The bytes of the file that was rollouts.jsonl when there were `num_shards` shards; it may be one now.

    Returns None if it has been removed since. Raises OSError if it cannot be read.
    """
    found = shards(folder)
    if max(found, default=0) <= num_shards:
        return _size(folder / ROLLOUTS)
    return _size(found[num_shards + 1]) if num_shards + 1 in found else None


def undo_shards(folder: Path, num_shards: int) -> None:
    """Remove the shards from `num_shards` + 1 on; rollouts.jsonl has the content of the first of them again.

    Raises ConfigError if that is damaged, OSError. What it leaves undone then, the next call does.
    """
    found = shards(folder)
    later = [number for number in found if number > num_shards]
    if not later:
        return
    draft = folder / f".{ROLLOUTS}.part"
    with draft.open("wb") as file:
        if (shard := found.get(num_shards + 1)) is not None:
            with decompressing(shard), _opened(shard) as content:
                shutil.copyfileobj(content, file)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(folder / ROLLOUTS)
    for number in reversed(later):
        for suffix in (".jsonl", ".jsonl.gz"):
            (folder / f"rollouts-{number:06d}{suffix}").unlink(missing_ok=True)


def sync_shards(folder: Path) -> int:
    """Have all shards outlive a loss of power; the number of the last one, 0 without any."""
    found = shards(folder)
    for path in found.values():
        if path.suffix != ".gz":
            with suppress(FileNotFoundError), path.open("rb") as file:  # compressed ones are on disk
                os.fsync(file.fileno())
    return max(found, default=0)


def _compress(path: Path) -> None:
    packed = path.with_name(f"{path.name}.gz")
    draft = path.with_name(f".{packed.name}.part")
    if not packed.exists():
        with path.open("rb") as source, draft.open("wb") as file:
            with gzip.open(file, "wb", compresslevel=_LEVEL) as target:
                shutil.copyfileobj(source, target, 1 << 20)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(packed)
    path.unlink()


def _opened(path: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb"))


def _size(path: Path) -> int:
    """In bytes, uncompressed; a shard has less than the 4 GiB that gzip's trailer can count."""
    if path.suffix != ".gz":
        return path.stat().st_size
    with path.open("rb") as file:
        file.seek(-4, os.SEEK_END)
        return int.from_bytes(file.read(4), "little")
