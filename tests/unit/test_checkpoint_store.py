"""Drafts, the move into place, what is taken as the newest, and what is deleted."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rlstack.checkpoint.manifest import MANIFEST, Manifest, digest_of
from rlstack.checkpoint.store import CheckpointStore
from rlstack.config.schema import Checkpoint
from rlstack.errors import CheckpointError


def save(store: CheckpointStore, step: int, selection: float | None = None) -> Path:
    draft = store.draft(step)
    (draft / "policy").mkdir()
    (draft / "policy" / "data").write_bytes(bytes([step % 256]) * 100)
    (draft / "run.json").write_text(f'{{"step": {step}}}')
    return store.commit(step, selection)


def names(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())


def test_a_checkpoint_is_there_once_it_is_committed(tmp_path) -> None:
    store = CheckpointStore(tmp_path / "checkpoints", Checkpoint())
    assert store.newest() is None
    draft = store.draft(40)
    (draft / "run.json").write_text("{}")
    assert store.newest() is None
    folder = store.commit(40, None)
    assert folder.name == "step-00000040"
    assert store.newest() == folder
    assert names(folder) == [MANIFEST, "run.json"]
    assert names(tmp_path / "checkpoints") == ["step-00000040"]


def test_digests_that_are_known_are_believed_and_the_sizes_checked(tmp_path) -> None:
    store = CheckpointStore(tmp_path, Checkpoint())
    draft = store.draft(1)
    (draft / "data").write_bytes(b"written")
    known = digest_of(draft / "data")._replace(sha256="0" * 64)
    assert Manifest.read(store.commit(1, None, {"data": known})).files["data"] == known
    store.draft(2)
    with pytest.raises(CheckpointError, match="data: should have 7 bytes, but has None"):
        store.commit(2, None, {"data": known})
    assert names(tmp_path) == [".step-00000002.part", "step-00000001"]


def test_the_newest_and_the_best_are_kept(tmp_path) -> None:
    store = CheckpointStore(tmp_path, Checkpoint(keep_last=2, keep_best=1))
    for step, selection in ((5, 0.9), (10, 0.2), (15, None), (20, 0.3)):
        save(store, step, selection)
    assert names(tmp_path) == ["step-00000005", "step-00000015", "step-00000020"]


def test_a_damaged_checkpoint_is_passed_over_with_a_note_and_replaced(tmp_path) -> None:
    notes: list[str] = []
    store = CheckpointStore(tmp_path, Checkpoint(), note=notes.append)
    older, newer = save(store, 1), save(store, 2)
    (newer / "run.json").write_text('{"step": 3}')
    assert store.newest() == older
    assert len(notes) == 1 and "step-00000002" in notes[0] and "run.json" in notes[0]
    assert store.newest() == older
    assert save(store, 2) == newer
    assert store.newest() == newer
    assert names(tmp_path) == [older.name, newer.name]


def test_a_checkpoint_under_another_name_is_none(tmp_path) -> None:
    notes: list[str] = []
    store = CheckpointStore(tmp_path, Checkpoint(), note=notes.append)
    save(store, 1).rename(tmp_path / "step-00000009")
    with pytest.raises(CheckpointError, match=r"is damaged\n.* another step"):
        store.newest()
    assert notes == []


def test_drafts_left_behind_are_swept(tmp_path) -> None:
    store = CheckpointStore(tmp_path, Checkpoint())
    kept = save(store, 1)
    (store.draft(2) / "run.json").write_text("half")
    (tmp_path / ".step-00000003.old").mkdir()
    (tmp_path / "notes.txt").write_text("mine")
    store.sweep()
    assert names(tmp_path) == ["notes.txt", kept.name]
    assert store.newest() == kept


DIE = """
import os, signal, sys
from pathlib import Path
from rlstack.checkpoint import store
from rlstack.config.schema import Checkpoint

calls = int(sys.argv[2])

def counted(function):
    def call(*arguments, **keywords):
        global calls
        calls -= 1
        if calls < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **keywords)
    return call

for name in ("rename", "rmdir", "unlink", "fsync", "open", "replace"):
    setattr(os, name, counted(getattr(os, name)))
kept = store.CheckpointStore(Path(sys.argv[1]), Checkpoint(keep_last=1, keep_best=0))
draft = kept.draft(2)
(draft / "run.json").write_text("2")
kept.commit(2, None)
print(calls)
"""


def test_wherever_it_is_killed_the_newest_checkpoint_is_whole(tmp_path) -> None:
    def commit(root: Path, calls: int) -> subprocess.CompletedProcess[str]:
        save(CheckpointStore(root, Checkpoint()), 1)
        command = [sys.executable, "-c", DIE, str(root), str(calls)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    whole = commit(tmp_path / "whole", 1000)
    assert whole.returncode == 0, whole.stderr
    num_calls = 1000 - int(whole.stdout)
    assert num_calls > 8
    found = []
    for calls in range(num_calls):
        root = tmp_path / str(calls)
        assert commit(root, calls).returncode == -signal.SIGKILL
        store = CheckpointStore(root, Checkpoint())
        store.sweep()
        newest = store.newest()
        assert newest is not None
        assert not [path for path in root.iterdir() if path.name.startswith(".")]
        found.append(newest.name)
    assert found == sorted(found)
    assert set(found) == {"step-00000001", "step-00000002"}


def test_the_best_is_the_later_of_the_highest_that_are_whole(tmp_path) -> None:
    notes: list[str] = []
    store = CheckpointStore(tmp_path, Checkpoint(keep_last=9), note=notes.append)
    assert store.best() is None
    save(store, 5)
    assert store.best() is None
    for step, selection in ((10, 0.4), (15, 0.6), (20, 0.6), (25, 0.9), (30, 0.1)):
        save(store, step, selection)
    (tmp_path / "step-00000025" / "run.json").write_text("damaged")
    found = store.best()
    assert found is not None
    assert found.name == "step-00000020"
    assert notes[0].startswith("passing over checkpoint step-00000025")


def test_a_step_is_asked_for_by_its_number(tmp_path) -> None:
    store = CheckpointStore(tmp_path, Checkpoint())
    save(store, 5)
    folder = save(store, 10)
    assert store.of_step(10) == folder
    with pytest.raises(CheckpointError, match="no checkpoint of step 7; there are: 5, 10"):
        store.of_step(7)
    (folder / "run.json").unlink()
    with pytest.raises(CheckpointError, match=r"run\.json: is missing"):
        store.of_step(10)
