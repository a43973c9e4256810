"""What a checkpoint consists of: every file with its size and digest, in a file that vouches for itself.

A flipped bit in any file changes its digest; one in the manifest changes its own, or leaves text that is not
the one way to write what it says.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from rlstack.errors import CheckpointError, UnreadableCheckpoint
from rlstack.files import written_at_once

MANIFEST = "manifest.json"
POLICY = "policy"  # the folder in a checkpoint that the policy's ranks write and read
_CHUNK_BYTES = 8 * 1024**2
_NOT_THERE = (FileNotFoundError, NotADirectoryError, IsADirectoryError)


class Digest(NamedTuple):
    """Of one file."""

    num_bytes: int
    sha256: str  # in hex


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    step: int
    selection: float | None  # eval/selection of the last evaluation, None if there was none
    files: Mapping[str, Digest]  # by path relative to the checkpoint, with slashes

    def write(self, folder: Path) -> None:
        """Write it to `folder`, durably."""
        with written_at_once(folder / MANIFEST) as file:
            file.write(_text(self))

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read that of the checkpoint `folder`.

        Raises CheckpointError if there is none, or if it is not to the letter what `write` writes;
        UnreadableCheckpoint if it cannot be read.
        """
        path = folder / MANIFEST
        with reading(path, f"is missing, so {folder.name} is no checkpoint"):
            content = path.read_bytes()
        try:
            manifest = _parsed(json.loads(content))
            if _text(manifest).encode() != content:
                raise ValueError("its content is not what its digest was taken of")
        except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:
            raise CheckpointError(f"{path}: is damaged ({error}); use another checkpoint") from None
        return manifest


@contextmanager
def reading(path: Path, missing: str = "is missing; use another checkpoint") -> Iterator[None]:
    """Raise what an OSError inside says of a checkpoint's file or folder at `path`.

    That is CheckpointError with `missing` where nothing of that kind is there, and UnreadableCheckpoint where
    it cannot be told what is there: a lost mount, a failing disk, missing rights.
    """
    try:
        yield
    except _NOT_THERE:
        raise CheckpointError(f"{path}: {missing}") from None
    except OSError as error:
        raise UnreadableCheckpoint(
            f"{path}: cannot be read ({error.strerror or error}), which says nothing about what is in it; "
            "nothing was changed: try again once it can be read"
        ) from None


def digest_of(path: Path) -> Digest:
    """Of the file at `path`; it is read in pieces. Raises OSError."""
    hashed, num_bytes = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            hashed.update(chunk)
            num_bytes += len(chunk)
    return Digest(num_bytes, hashed.hexdigest())


def files_in(folder: Path) -> list[str]:
    """Every file of the checkpoint `folder` but the manifest, sorted.

    Raises CheckpointError for what is neither a folder nor a file of its own, such as a link; OSError if a
    folder cannot be listed.
    """
    found = []
    for place, folders, files in os.walk(folder, onerror=_raise):
        for path in (Path(place, name) for name in (*folders, *files)):
            if path.is_symlink() or not (path.is_dir() or path.is_file()):
                raise CheckpointError(f"{path}: is not a plain file, and a checkpoint has no others")
        found += [Path(place, name).relative_to(folder).as_posix() for name in files]
    return sorted(name for name in found if name != MANIFEST)


def _raise(error: OSError) -> None:
    raise error


def check_names(folder: Path, manifest: Manifest) -> None:
    """Raise CheckpointError unless the files in `folder` are those of the manifest, by name and size.

    Raises UnreadableCheckpoint if a folder in it cannot be read.
    """
    with reading(folder):
        found = {name: (folder / name).stat().st_size for name in files_in(folder)}
    for name in sorted(manifest.files.keys() - found.keys()):
        raise CheckpointError(f"{folder / name}: is missing; use another checkpoint")
    for name, size in found.items():
        if name not in manifest.files:
            raise CheckpointError(f"{folder / name}: is not part of the checkpoint; remove it")
        if size != (expected := manifest.files[name].num_bytes):
            raise CheckpointError(
                f"{folder / name}: has {size} bytes, but {expected} were written; use another checkpoint"
            )


def check_files(folder: Path, manifest: Manifest, names: Iterable[str]) -> None:
    """Raise CheckpointError for the first of the files `names` that is not what was written.

    Raises UnreadableCheckpoint if it cannot be read.
    """
    for name in names:
        with reading(folder / name):
            found = digest_of(folder / name)
        if found != manifest.files[name]:
            raise CheckpointError(
                f"{folder / name}: its digest is {found.sha256[:12]}..., but what was written had "
                f"{manifest.files[name].sha256[:12]}...; use another checkpoint"
            )


def check(folder: Path, *, without_policy: bool = False) -> Manifest:
    """The manifest of the checkpoint `folder`, of which every file has been read.

    without_policy: but for those of the policy, of which the names and sizes are checked, and the content is
        for its ranks to check.

    Raises CheckpointError naming the first file that is damaged, missing or too many; UnreadableCheckpoint
    naming one that cannot be read.
    """
    manifest = Manifest.read(folder)
    check_names(folder, manifest)
    names = [name for name in sorted(manifest.files) if not (without_policy and _is_of_policy(name))]
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        list(pool.map(lambda name: check_files(folder, manifest, [name]), names))
    return manifest


def share(manifest: Manifest, *, rank: int, num_ranks: int) -> list[str]:
    """The policy's files that `rank` of `num_ranks` is to check: each is one's, with bytes spread evenly."""
    loads = [0] * num_ranks
    mine = []
    files = [(name, digest) for name, digest in manifest.files.items() if _is_of_policy(name)]
    for name, digest in sorted(files, key=lambda item: (-item[1].num_bytes, item[0])):
        chosen = loads.index(min(loads))
        loads[chosen] += digest.num_bytes
        if chosen == rank:
            mine.append(name)
    return mine


def _is_of_policy(name: str) -> bool:
    return name.startswith(f"{POLICY}/")


def _text(manifest: Manifest) -> str:
    """The one way to write it."""
    body = {
        "files": {name: list(digest) for name, digest in manifest.files.items()},
        "selection": manifest.selection,
        "step": manifest.step,
    }
    to_text: Callable[[Any], str] = json.JSONEncoder(sort_keys=True, indent=1, allow_nan=False).encode
    return to_text({"content": body, "sha256": hashlib.sha256(to_text(body).encode()).hexdigest()}) + "\n"


def _parsed(record: Any) -> Manifest:
    body = record["content"]
    step, selection = body["step"], body["selection"]
    if type(step) is not int or step < 0:
        raise ValueError(f"step = {step!r}")
    if selection is not None and not (type(selection) is float and math.isfinite(selection)):
        raise ValueError(f"selection = {selection!r}")
    files = {str(name): Digest(int(size), str(sha256)) for name, (size, sha256) in body["files"].items()}
    return Manifest(step=step, selection=selection, files=files)
