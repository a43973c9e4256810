"""No checkpoint, none that is whole, none that can be read: of which only the first is `None`."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from rlstack.checkpoint import manifest as manifests
from rlstack.checkpoint.manifest import MANIFEST
from rlstack.checkpoint.run_state import RunState, read_rollouts, write_rollouts
from rlstack.checkpoint.store import CheckpointStore
from rlstack.config.schema import Checkpoint
from rlstack.errors import CheckpointError, UnreadableCheckpoint


def save(store: CheckpointStore, step: int, selection: float | None = None) -> Path:
    draft = store.draft(step)
    (draft / "policy").mkdir()
    (draft / "policy" / "weights").write_bytes(bytes(range(100)))
    RunState(step=step, served_version=0, reference_version=0, positions={}).write(draft)
    write_rollouts(draft, {})
    return store.commit(step, selection)


def cut(folder: Path) -> None:
    os.truncate(folder / "run.json", 10)


def flip(folder: Path) -> None:
    (folder / "policy" / "weights").write_bytes(bytes(100))


def empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def no_manifest(folder: Path) -> None:
    (folder / MANIFEST).unlink()


def of_another_step(folder: Path) -> None:
    other = folder.with_name("step-00000001")
    shutil.copy(other / MANIFEST, folder / MANIFEST)


def a_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("")


def a_dangling_link(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.symlink_to("nowhere")


DAMAGES = [cut, flip, empty, no_manifest, of_another_step, a_file, a_dangling_link]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_checkpoints_of_which_none_is_whole_are_not_none(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    store = CheckpointStore(tmp_path, Checkpoint(keep_last=9))
    assert store.newest() is None
    for step in (1, 20, 40):
        save(store, step)
    for step in (20, 40):
        damage(tmp_path / f"step-{step:08d}")
    newest = store.newest()
    assert newest is not None and newest.name == "step-00000001"
    cut(newest)
    with pytest.raises(CheckpointError) as raised:
        store.newest()
    assert not isinstance(raised.value, UnreadableCheckpoint)
    assert "3 checkpoints are there, and none of them is whole" in str(raised.value)
    assert all(f"step-{step:08d}: " in str(raised.value) for step in (1, 20, 40))


@pytest.mark.parametrize("trouble", [errno.EIO, errno.ESTALE, errno.EACCES, errno.EPERM, errno.ETIMEDOUT])
@pytest.mark.parametrize("name", [MANIFEST, "run.json", "rollouts.arrow", "weights"])
def test_a_file_that_cannot_be_read_ends_the_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: int, name: str
) -> None:
    store = CheckpointStore(tmp_path, Checkpoint())
    older, newer = save(store, 20), save(store, 40)
    opened = Path.open

    def refuse(path: Path, *arguments: object, **keywords: object) -> object:
        if path.name == name and newer in path.parents:
            raise OSError(trouble, os.strerror(trouble), str(path))
        return opened(path, *arguments, **keywords)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", refuse)
        with pytest.raises(UnreadableCheckpoint, match=f"{name}: cannot be read .*nothing was changed"):
            store.newest()
        shutil.move(older, tmp_path / "elsewhere")
        with pytest.raises(UnreadableCheckpoint):
            store.newest()
    assert store.newest() == newer


@pytest.mark.parametrize("call", ["listdir", "scandir"])
def test_a_folder_that_cannot_be_listed_ends_the_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    store = CheckpointStore(tmp_path, Checkpoint())
    save(store, 20)

    def refuse(path: object) -> None:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(path))

    monkeypatch.setattr(manifests.os, call, refuse)
    with pytest.raises(UnreadableCheckpoint, match="cannot be read"):
        store.newest()


@pytest.mark.parametrize("read", [RunState.read, read_rollouts])
def test_what_the_driver_reads_is_unreadable_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Callable[[Path], object]
) -> None:
    folder = save(CheckpointStore(tmp_path, Checkpoint()), 20)

    def refuse(path: Path, *arguments: object, **keywords: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(UnreadableCheckpoint, match="Input/output error"):
        read(folder)


@pytest.mark.parametrize("kind", ["file", "link"])
def test_a_root_that_is_no_folder_is_not_none(tmp_path: Path, kind: str) -> None:
    root = tmp_path / "checkpoints"
    if kind == "file":
        root.write_text("")
    else:
        root.symlink_to(tmp_path / "unmounted")
    with pytest.raises(CheckpointError, match="is not a folder that is there"):
        CheckpointStore(root, Checkpoint()).newest()


@pytest.mark.parametrize("damage", [cut, no_manifest, empty, of_another_step, flip])
@pytest.mark.parametrize("step", [999, 30])
def test_damaged_checkpoints_take_nobodys_place(
    tmp_path: Path, damage: Callable[[Path], None], step: int
) -> None:
    store = CheckpointStore(tmp_path, Checkpoint(keep_last=1, keep_best=0))
    save(CheckpointStore(tmp_path, Checkpoint(keep_last=9)), 1)
    damaged = save(CheckpointStore(tmp_path, Checkpoint(keep_last=9)), step)
    damage(damaged)
    newest = store.newest()  # as a run reads it that goes on
    assert newest is not None and newest.name == "step-00000001"
    assert save(store, 20) == store.newest()
    if step < 40:
        assert save(store, 40) == store.newest()
    assert damaged.exists()


def test_a_commit_that_fails_deletes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = CheckpointStore(tmp_path, Checkpoint(keep_last=1, keep_best=0))
    kept = save(store, 20)

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(manifests.Manifest, "write", full)
        with pytest.raises(OSError, match="No space left"):
            save(store, 40)
    store.empty_draft(40)
    assert store.newest() == kept and store.has_draft()
    store.sweep()
    assert not store.has_draft()
