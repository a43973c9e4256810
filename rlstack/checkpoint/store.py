"""A run's checkpoints: written to drafts, moved into place once they are whole, and kept for a while."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from rlstack.checkpoint.manifest import Digest, Manifest, check, digest_of, files_in
from rlstack.checkpoint.retention import Candidate, kept
from rlstack.config.schema import Checkpoint
from rlstack.errors import CheckpointError
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
        self._delete_superseded()
        return folder

    def newest(self) -> Path | None:
        """The newest checkpoint of which every byte is as it was written; None if there is none.

        Those that are damaged are passed over, with a note each.
        """
        return self._first_whole(sorted(self._folders(), key=_step, reverse=True))

    def best(self) -> Path | None:
        """As `newest`, the best of those with an evaluation; of two that are equally good the later one."""
        judged = []
        for folder in self._folders():
            with suppress(CheckpointError):
                if (selection := Manifest.read(folder).selection) is not None:
                    judged.append((selection, _step(folder), folder))
        return self._first_whole(folder for _, _, folder in sorted(judged, reverse=True))

    def of_step(self, step: int) -> Path:
        """The checkpoint of `step`; raises CheckpointError if there is none, or if it is damaged."""
        folder = self._root / _name(step)
        if not folder.is_dir():
            steps = ", ".join(str(_step(path)) for path in sorted(self._folders(), key=_step)) or "none"
            raise CheckpointError(f"{self._root}: has no checkpoint of step {step}; there are: {steps}")
        check(folder)
        return folder

    def sweep(self) -> None:
        """Remove what a killed process has left: drafts, and checkpoints under replacement."""
        for pattern in _LEFTOVERS:
            for folder in self._root.glob(pattern):
                shutil.rmtree(folder, ignore_errors=True)

    def _first_whole(self, folders: Iterable[Path]) -> Path | None:
        for folder in folders:
            try:
                if check(folder).step != _step(folder):
                    raise CheckpointError(f"{folder}: is the checkpoint of another step")
                return folder
            except CheckpointError as error:
                self._note(f"passing over checkpoint {folder.name}: {error}")
        return None

    def _folders(self) -> list[Path]:
        if not self._root.is_dir():
            return []
        return [path for path in self._root.iterdir() if path.is_dir() and _NAME.fullmatch(path.name)]

    def _delete_superseded(self) -> None:
        """What has no valid manifest counts as none and stays for the user to look at."""
        found = {}
        for folder in self._folders():
            try:
                manifest = Manifest.read(folder)
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


def _check_written(draft: Path, digests: Mapping[str, Digest]) -> None:
    for name, digest in digests.items():
        path = draft / name
        size = path.stat().st_size if path.is_file() else None
        if size != digest.num_bytes:
            raise CheckpointError(f"{path}: should have {digest.num_bytes} bytes, but has {size}")
