"""A checkpoint's files against its manifest, and the manifest against itself."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlstack.checkpoint.manifest import MANIFEST, Digest, Manifest, check, digest_of, files_in, share
from rlstack.errors import CheckpointError


def write(folder: Path, *, selection: float | None = 0.1) -> Path:
    (folder / "policy").mkdir(parents=True)
    (folder / "run.json").write_text('{"step": 3}\n')
    (folder / "empty").write_bytes(b"")
    (folder / "policy" / "__0_0.distcp").write_bytes(random.Random(0).randbytes(5000))
    files = {name: digest_of(folder / name) for name in files_in(folder)}
    Manifest(step=3, selection=selection, files=files).write(folder)
    return folder


@pytest.mark.parametrize("selection", [None, 0.0, -1.5, 1 / 3])
def test_what_was_written_is_accepted(tmp_path, selection) -> None:
    manifest = check(write(tmp_path / "it", selection=selection))
    assert (manifest.step, manifest.selection) == (3, selection)
    assert manifest.files["empty"].num_bytes == 0
    assert set(manifest.files) == {"run.json", "empty", "policy/__0_0.distcp"}


def test_any_flipped_bit_is_found(tmp_path) -> None:
    folder = write(tmp_path / "it")
    for path in [folder / name for name in ("run.json", "policy/__0_0.distcp", MANIFEST)]:
        content = path.read_bytes()
        bits = range(8 * len(content)) if path.name == MANIFEST else range(0, 8 * len(content), 211)
        for bit in bits:
            damaged = bytearray(content)
            damaged[bit // 8] ^= 1 << bit % 8
            path.write_bytes(damaged)
            with pytest.raises(CheckpointError, match=path.name):
                check(folder)
        path.write_bytes(content)
    check(folder)


@pytest.mark.parametrize("length", [0, 1, 100, -1])
@pytest.mark.parametrize("name", ["run.json", "policy/__0_0.distcp", MANIFEST])
def test_a_truncated_file_is_found(tmp_path, name, length) -> None:
    path = write(tmp_path / "it") / name
    path.write_bytes(path.read_bytes()[:length] if path.name != "run.json" or length < 12 else b"")
    with pytest.raises(CheckpointError, match=path.name):
        check(tmp_path / "it")


def test_a_file_missing_or_too_many_is_named(tmp_path) -> None:
    folder = write(tmp_path / "it")
    (folder / "policy" / "stranger").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"stranger: is not part of the checkpoint"):
        check(folder)
    (folder / "policy" / "stranger").unlink()
    (folder / "empty").unlink()
    with pytest.raises(CheckpointError, match="empty: is missing"):
        check(folder)


def test_a_folder_without_a_manifest_is_no_checkpoint(tmp_path) -> None:
    folder = write(tmp_path / "it")
    (folder / MANIFEST).unlink()
    with pytest.raises(CheckpointError, match="is missing, so it is no checkpoint"):
        check(folder)


def test_a_link_is_refused(tmp_path) -> None:
    folder = write(tmp_path / "it")
    (folder / "run.json").rename(tmp_path / "elsewhere")
    (folder / "run.json").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match="not a plain file"):
        check(folder)


@given(st.lists(st.integers(0, 10**9), max_size=40), st.integers(1, 9))
def test_every_file_of_the_policy_is_checked_by_one_rank(sizes, num_ranks) -> None:
    files = {f"policy/file-{index}": Digest(size, "") for index, size in enumerate(sizes)}
    manifest = Manifest(step=0, selection=None, files=files | {"run.json": Digest(7, "")})
    shares = [share(manifest, rank=rank, num_ranks=num_ranks) for rank in range(num_ranks)]
    assert sorted(name for names in shares for name in names) == sorted(files)
    loads = [sum(files[name].num_bytes for name in names) for names in shares]
    # A rank gets another file only while it has the least.
    assert max(loads) - min(loads) <= max(sizes, default=0)


def test_the_policy_s_files_may_be_left_to_its_ranks_but_for_names_and_sizes(tmp_path) -> None:
    folder = write(tmp_path / "it")
    path = next(path for path in (folder / "policy").iterdir() if path.stat().st_size)
    content = path.read_bytes()
    path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    assert check(folder, without_policy=True).files
    with pytest.raises(CheckpointError, match=f"{path.name}: its digest is"):
        check(folder)
    path.write_bytes(content[:-1])
    with pytest.raises(CheckpointError, match=f"{path.name}: has"):
        check(folder, without_policy=True)
    path.write_bytes(content)
    (folder / "run.json").write_bytes((folder / "run.json").read_bytes().swapcase())
    with pytest.raises(CheckpointError, match=r"run\.json: its digest is"):
        check(folder, without_policy=True)
