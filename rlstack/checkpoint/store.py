"""A run's checkpoints: written to drafts, moved into place once they are whole, and kept for a while."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from rlstack.checkpoint.manifest import (
    Digest,
    Manifest,
    check,
    check_names,
    digest_of,
    files_in,
    reading,
)
from rlstack.checkpoint.retention import Candidate, kept
from rlstack.config.schema import Checkpoint
from rlstack.errors import CheckpointError, UnreadableCheckpoint
from rlstack.files import sync_to_disk

_NAME = re.compile(r"step-(\d{8,})")
_LEFTOVERS = (".step-*.part", ".step-*.old")


class CheckpointStore:
    """One process writes to `root`; what is not renamed to step-<step> is no checkpoint."""

    def __init__(self, root: Path, settings: Checkpoint, *, note: Callable[[str], object] = print) -> None:
        """note: takes a line for the user about a checkpoint that is passed over."""
        self._root = root
        self._settings = settings
        self._note = note
        self._damaged: set[Path] = set()  # as far as they have been read

    def draft(self, step: int) -> Path:
        """An empty folder to write the checkpoint of `step` to; a draft left from before is gone."""
        folder = self._root / f".{_name(step)}.part"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    def commit(self, step: int, selection: float | None, digests: Mapping[str, Digest] | None = None) -> Path:
        """Make the draft of `step` a checkpoint, durably, and delete those that need not be kept.

        digests: of the files that have been hashed, and synced to the disk, by who wrote them, by path
        relative to the draft; the others are hashed here. A damaged checkpoint of the same step is replaced.

        Raises CheckpointError if a file of `digests` is not there in its size, OSError if a disk fails.
        """
        draft, folder = self._root / f".{_name(step)}.part", self._root / _name(step)
        known = dict(digests or {})
        _check_written(draft, known)
        for name in files_in(draft):
            if name not in known:
                sync_to_disk(draft / name)
                known[name] = digest_of(draft / name)
        Manifest(step=step, selection=selection, files=known).write(draft)
        for path in [draft, *(path for path in draft.rglob("*") if path.is_dir())]:
            sync_to_disk(path)
        if folder.exists():
            folder.rename(self._root / f".{_name(step)}.old")
        draft.rename(folder)
        sync_to_disk(self._root)
        self._damaged.discard(folder)
        self._delete_superseded(step)
        return folder

    def newest(self, also: Callable[[Path], object] | None = None) -> Path | None:
        """The newest checkpoint of which every byte is as it was written; None only if there are none at all.

        Those that are damaged are passed over, with a note each. also: checks the policy's files, which are
        not read here then; as `check` it raises.

        Raises:
            CheckpointError: there are checkpoints, and none is whole; what is wrong with each, line by line.
            UnreadableCheckpoint: one that may be the newest cannot be read now.
        """
        return self._first_whole(sorted(self._folders(), key=_step, reverse=True), also)

    def best(self) -> Path | None:
        """As `newest`, the best of those with an evaluation; of two that are equally good the later one."""
        judged = []
        for folder in self._folders():
            try:
                selection = Manifest.read(folder).selection
            except UnreadableCheckpoint:
                raise
            except CheckpointError:
                continue
            if selection is not None:
                judged.append((selection, _step(folder), folder))
        return self._first_whole(folder for _, _, folder in sorted(judged, reverse=True))

    def has_draft(self) -> bool:
        """Whether a checkpoint was begun and did not come to its end."""
        return any(self._root.glob(_LEFTOVERS[0]))

    def empty_draft(self, step: int) -> None:
        """Free the room that the draft of `step` takes, which will not come to its end."""
        folder = self._root / f".{_name(step)}.part"
        if folder.is_dir():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(exist_ok=True)

    def of_step(self, step: int) -> Path:
        """The checkpoint of `step`; raises CheckpointError if there is none, or if it is damaged."""
        folder = self._root / _name(step)
        if folder not in self._folders():
            steps = ", ".join(str(_step(path)) for path in sorted(self._folders(), key=_step)) or "none"
            raise CheckpointError(f"{self._root}: has no checkpoint of step {step}; there are: {steps}")
        _check(folder)
        return folder

    def sweep(self) -> None:
        """Remove what a killed process has left: drafts, and checkpoints under replacement."""
        for pattern in _LEFTOVERS:
            for folder in self._root.glob(pattern):
                shutil.rmtree(folder, ignore_errors=True)

    def _first_whole(
        self, folders: Iterable[Path], also: Callable[[Path], object] | None = None
    ) -> Path | None:
        passed: list[str] = []
        for folder in folders:
            try:
                _check(folder, without_policy=also is not None)
                if also is not None:
                    also(folder)
            except UnreadableCheckpoint:
                raise
            except CheckpointError as error:
                self._damaged.add(folder)
                passed.append(f"{folder.name}: {error}")
            else:
                for each in passed:
                    self._note(f"passing over checkpoint {each}")
                return folder
        if passed:
            raise CheckpointError("\n".join([f"{self._root}: {_count(passed)}", *passed]))
        return None

    def _folders(self) -> list[Path]:
        """What has the name of a checkpoint, whatever it is."""
        if not os.path.lexists(self._root):
            return []
        with reading(self._root, "is not a folder that is there, and checkpoints were to be in it"):
            names = os.listdir(self._root)
        return [self._root / name for name in names if _NAME.fullmatch(name)]

    def _delete_superseded(self, newest: int) -> None:
        """After the commit of step `newest`, which always stays.

        What is damaged counts as none and stays for the user to look at: what lacks a valid manifest, or a
        file of its size; what was found so when it was read; and what is of a later step, for otherwise the
        run would have gone on from there.
        """
        found = {}
        for folder in self._folders():
            if _step(folder) > newest or folder in self._damaged:
                continue
            try:
                manifest = Manifest.read(folder)
                check_names(folder, manifest)
            except CheckpointError:
                continue
            found[folder] = Candidate(_step(folder), manifest.selection)
        settings = self._settings
        steps = kept(found.values(), keep_last=settings.keep_last, keep_best=settings.keep_best)
        for folder, candidate in found.items():
            if candidate.step not in steps:
                # Renamed first: a process killed in the middle leaves no checkpoint that lacks files.
                doomed = folder.with_name(f".{folder.name}.old")
                shutil.rmtree(doomed, ignore_errors=True)
                folder.rename(doomed)
        self._remove_old()

    def _remove_old(self) -> None:
        for folder in self._root.glob(_LEFTOVERS[1]):
            shutil.rmtree(folder, ignore_errors=True)


def _name(step: int) -> str:
    return f"step-{step:08d}"


def _step(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))


def _check(folder: Path, *, without_policy: bool = False) -> None:
    """Raise CheckpointError unless `folder` is a whole checkpoint, of the step in its name."""
    if check(folder, without_policy=without_policy).step != _step(folder):
        raise CheckpointError(f"{folder}: is the checkpoint of another step")


def _count(damaged: list[str]) -> str:
    if len(damaged) == 1:
        return "the one checkpoint that is there is damaged"
    return f"{len(damaged)} checkpoints are there, and none of them is whole"


def _check_written(draft: Path, digests: Mapping[str, Digest]) -> None:
    for name, digest in digests.items():
        path = draft / name
        size = path.stat().st_size if path.is_file() else None
        if size != digest.num_bytes:
            raise CheckpointError(f"{path}: should have {digest.num_bytes} bytes, but has {size}")
