"""Checkpoints of the policy: exact in the layout that they were written in, within rounding in others."""

from __future__ import annotations

import json
import os
import pickle
import random
import re
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import BytesStorageMetadata, MetadataIndex
from transformers import Qwen2Config

from rlstack.checkpoint.manifest import MANIFEST, Manifest, check, digest_of, files_in
from rlstack.checkpoint.store import CheckpointStore
from rlstack.collectives import SECRET
from rlstack.config.schema import Checkpoint
from rlstack.data.records import MicroBatch
from rlstack.errors import CheckpointError
from rlstack.policy.checkpoint_export import export_checkpoint
from rlstack.rendezvous import serve_store
from tests.distributed.policy_ranks import LAYOUTS, SHAPE, Job, read_metrics, run_jobs, seed_model, stages
from tests.distributed.test_policy import sequences, shares
from tests.ranks import ROOT

__all__ = ["sequences"]

PROGRAM = Path(__file__).with_name("checkpoint_job.py")
SKIPPED, SAVED, NUM_STEPS = 1, 3, 6
HERE = LAYOUTS | {
    "pp2_vp2": {"pipeline_parallel": 2, "virtual_pipeline": 2},
    "cp2": {"context_parallel": 2},
}
WRITTEN = ("one", "tp2", "pp2", "dp2", "tp2_pp2", "pp2_vp2")
# Not of a layout alone: the layout, the step at which it is saved, the precision.
SPECIAL = {"fresh": ("one", 0, "fp32"), "bf16": ("dp2", SAVED, "bf16")}
# In which layout a checkpoint of which one is gone on from, as new processes.
RESTORED = {
    **{f"{layout}_from_{layout}": (layout, layout) for layout in WRITTEN},
    "one_from_tp2_pp2": ("one", "tp2_pp2"),
    "one_from_dp2": ("one", "dp2"),
    "tp2_from_pp2_vp2": ("tp2", "pp2_vp2"),
    "pp2_vp2_from_tp2_pp2": ("pp2_vp2", "tp2_pp2"),
    "cp2_from_pp2_vp2": ("cp2", "pp2_vp2"),
    "pp2_from_tp2": ("pp2", "tp2"),
    "dp2_from_tp2_pp2": ("dp2", "tp2_pp2"),
    "tp2_pp2_from_dp2": ("tp2_pp2", "dp2"),
    "tp2_pp2_from_one": ("tp2_pp2", "one"),
}
# The engines have version 2 then; the reference is at 2 with them, or at 0, of which a copy is kept.
REFERENCE_SYNC = {"pp2": "with_generator", "one": "with_generator"}


@dataclass(frozen=True)
class CheckpointJob(Job):
    plan: dict[str, Any] = field(default_factory=dict)

    def write(self, folder: Path, port: int) -> None:
        super().write(folder, port)
        (folder / "checkpoint.json").write_text(json.dumps(self.plan))


class Calls:
    """Pickled, it is a call, which makes a folder."""

    def __init__(self, made: Path) -> None:
        self._made = made

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self._made),)


def with_bytes(policy: Path, made: Path) -> None:
    """An entry of bytes with a tensor's size in its place, and in the data what would be unpickled."""
    contents, data = pickle.loads((policy / ".metadata").read_bytes()), policy / "__0_0.distcp"
    name = "decoder.final_layernorm.weight"
    entry: Any = BytesStorageMetadata()
    entry.size = contents.state_dict_metadata[name].size
    contents.state_dict_metadata[name] = entry
    content = pickle.dumps(Calls(made))
    contents.storage_data[MetadataIndex(name)] = _StorageInfo(data.name, data.stat().st_size, len(content))
    with data.open("ab") as file:
        file.write(content)
    (policy / ".metadata").write_bytes(pickle.dumps(contents))


def elsewhere(policy: Path, made: Path) -> None:
    """A table that has the tensors read from a file in another folder."""
    data, outside = policy / "__0_0.distcp", policy.parent / "outside.distcp"
    shutil.copy(data, outside)
    content = (policy / ".metadata").read_bytes()
    assert b"__0_0.distcp" in content
    contents = pickle.loads(content)
    for place in contents.storage_data.values():
        place.relative_path = f"../{outside.name}"
    (policy / ".metadata").write_bytes(pickle.dumps(contents))


def calling_table(policy: Path, made: Path) -> None:
    (policy / ".metadata").write_bytes(pickle.dumps(Calls(made)))


def calling_common_part(policy: Path, made: Path) -> None:
    torch.save({"optimizer": Calls(made)}, policy / "common.pt")


def foreign_common_part(policy: Path, made: Path) -> None:
    common = torch.load(policy / "common.pt", weights_only=True)
    torch.save(common | {"weights": {}}, policy / "common.pt")


def shared_common_part(policy: Path, made: Path) -> None:
    """Small, and without an end to who follows its references."""
    value: Any = 1
    for _ in range(100):
        value = [value, value]
    torch.save({"optimizer": value}, policy / "common.pt")


def packed_common_part(policy: Path, made: Path) -> None:
    common = torch.load(policy / "common.pt", weights_only=True)
    torch.save({"optimizer": common["optimizer"] | {"": "0" * 10**6}}, policy / "common.pt")
    with zipfile.ZipFile(policy / "common.pt") as archive:
        parts = {entry: archive.read(entry) for entry in archive.namelist()}
    with zipfile.ZipFile(policy / "common.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)


def missing_tensor(policy: Path, made: Path) -> None:
    contents = pickle.loads((policy / ".metadata").read_bytes())
    del contents.state_dict_metadata["decoder.final_layernorm.weight"]
    (policy / ".metadata").write_bytes(pickle.dumps(contents))


def calling_tensor(policy: Path, made: Path) -> None:
    """A pickle where the data of a tensor was."""
    contents, data = pickle.loads((policy / ".metadata").read_bytes()), policy / "__0_0.distcp"
    place = contents.storage_data[MetadataIndex("decoder.final_layernorm.weight", torch.Size([0]))]
    with data.open("r+b") as file:
        file.seek(place.offset)
        file.write(pickle.dumps(Calls(made)))


# What has been done to a whole checkpoint, with a manifest that fits, and what is said of it.
HOSTILE: dict[str, tuple[Callable[[Path, Path], None], str]] = {
    "bytes": (with_bytes, r"\.metadata: is no table of contents \(it asks for .*\.BytesStorageMetadata"),
    "elsewhere": (elsewhere, r"\.metadata: is no table of contents \(it names \.\./outside\.distcp"),
    "calling_table": (calling_table, r"\.metadata: is no table of contents \(it asks for posix\.mkdir"),
    "calling_common_part": (calling_common_part, r"common\.pt: cannot be read \(.*asks for more than plain"),
    "foreign_common_part": (
        foreign_common_part,
        r"common\.pt: cannot be read \(it is not the state of an opt",
    ),
    "shared_common_part": (shared_common_part, r"common\.pt: cannot be read \(it refers to the same values"),
    "packed_common_part": (packed_common_part, r"common\.pt: cannot be read \(it is compressed"),
    "missing_tensor": (
        missing_tensor,
        r"policy: cannot be read \(.*decoder\.final_layernorm\.weight from model",
    ),
    "calling_tensor": (calling_tensor, r"policy: cannot be read \(it is damaged, or asks for more"),
}


def make_hostile(whole: Path, folder: Path, change: Callable[[Path, Path], None]) -> Path:
    """A checkpoint in `folder`; what it would run makes the folder beside it that ends with .made."""
    shutil.copytree(whole, folder)
    change(folder / "policy", folder.with_name(f"{folder.name}.made"))
    manifest = Manifest.read(folder)
    files = {name: digest_of(folder / name) for name in files_in(folder)}
    Manifest(step=manifest.step, selection=manifest.selection, files=files).write(folder)
    return folder


def exchanged_files(policy: Path, folder: Path) -> Path:
    """Files for a checked checkpoint: a table that calls something, and another state of the optimizer."""
    folder.mkdir()
    (folder / ".metadata").write_bytes(pickle.dumps(Calls(folder.with_name("exchanged.made"))))
    common = torch.load(policy / "common.pt", weights_only=True)
    for group in common["optimizer"]["optimizer"]["param_groups"]:
        group["weight_decay"] = 0.7
    torch.save(common, folder / "common.pt")
    return folder


def job(
    model: Path,
    layout: str,
    batches: list[list[MicroBatch]],
    plan: dict[str, Any],
    *,
    saved_in: str,
    precision: str = "fp32",
) -> CheckpointJob:
    optimizer = {"lr": 0.01, "warmup_steps": 4, "weight_decay": 0.1, "adam_eps": 1e-3, "clip_grad": 0.5}
    schedule = {"sync_interval": 2, "reference_sync": REFERENCE_SYNC.get(saved_in, "never")}
    policy = {**HERE[layout], "model": str(model), "step_timeout_s": 60.0, "precision": precision}
    config = {"policy": policy, "optimizer": optimizer, "schedule": schedule}
    return CheckpointJob(config, batches, num_steps=NUM_STEPS, plan=plan)


def run_all(folder: Path, jobs: Mapping[str, CheckpointJob]) -> None:
    """Jobs of all world sizes, those of one size in the same processes."""
    for world_size in sorted({job.world_size for job in jobs.values()}):
        of_size = {name: job for name, job in jobs.items() if job.world_size == world_size}
        inside = folder / str(world_size)
        inside.mkdir(parents=True)
        run_jobs(inside, of_size, program=("-m", "tests.distributed.checkpoint_job"))
        for name in of_size:
            (inside / name).rename(folder / name)


@pytest.fixture(scope="module")
def saved(sequences, tmp_path_factory) -> Path:
    """A folder for each layout, of a run that wrote a checkpoint and went on."""
    folder = tmp_path_factory.mktemp("saved")
    shape = Qwen2Config(**SHAPE | {"num_hidden_layers": 4}, tie_word_embeddings=True)
    model = seed_model(shape, folder / "model")
    jobs = {
        layout: job(
            model, layout, shares(sequences, layout, pairs=True), {"save_at": [SAVED]}, saved_in=layout
        )
        for layout in WRITTEN
    }
    for name, (layout, save_at, precision) in SPECIAL.items():
        batches, plan = shares(sequences, layout, pairs=True), {"save_at": [save_at]}
        jobs[name] = job(model, layout, batches, plan, saved_in=name, precision=precision)
    run_all(folder, jobs)
    return folder


def checkpoint_of(saved: Path, layout: str) -> Path:
    folder = CheckpointStore(saved / layout / "checkpoints", Checkpoint()).newest()
    assert folder is not None
    return folder


@pytest.fixture(scope="module")
def restored(saved, sequences, tmp_path_factory) -> Path:
    """A folder for each of RESTORED."""
    folder = tmp_path_factory.mktemp("restored")
    damaged, whole = folder / "damaged", checkpoint_of(saved, "one")
    shutil.copytree(checkpoint_of(saved, "pp2"), damaged)
    flip(damaged / "policy" / "__1_0.distcp", bit=8 * 2000)
    jobs = {}
    for name, (layout, source) in RESTORED.items():
        plan: dict[str, Any] = {"restore": str(checkpoint_of(saved, source)), "refused": [str(damaged)]}
        batches = shares(sequences, layout, pairs=True)
        jobs[name] = job(saved / "model", layout, batches, plan, saved_in=source)
    hostile = [make_hostile(whole, folder / name, change) for name, (change, _) in HOSTILE.items()]
    exchanged = exchanged_files(whole / "policy", folder / "exchanged-files")
    plan = {
        "restore": str(shutil.copytree(whole, folder / "private" / whole.name)),
        "refused": list(map(str, hostile)),
        "exchanged": str(exchanged),
    }
    jobs["exchanged"] = job(
        saved / "model", "one", shares(sequences, "one", pairs=True), plan, saved_in="one"
    )
    for name, (layout, _, precision) in SPECIAL.items():
        batches, plan = shares(sequences, layout, pairs=True), {"restore": str(checkpoint_of(saved, name))}
        jobs[name] = job(saved / "model", layout, batches, plan, saved_in=name, precision=precision)
    run_all(folder, jobs)
    return folder


def flip(path: Path, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*WRITTEN, *SPECIAL])
def test_exported_without_ranks_it_is_the_policy_that_was_saved(name, saved, tmp_path) -> None:
    out = tmp_path / "out"
    version = export_checkpoint(checkpoint_of(saved, name), out, source=saved / "model")
    assert version == (SPECIAL[name][1] if name in SPECIAL else SAVED)
    assert_equal(load_file(out / "model.safetensors"), stages(saved / name, "policy"))


@pytest.mark.slow
@pytest.mark.parametrize("name", [*WRITTEN, *SPECIAL])
def test_in_the_same_layout_the_steps_that_follow_are_the_same_to_the_bit(name, saved, restored) -> None:
    before, after = saved / name, restored / (name if name in SPECIAL else f"{name}_from_{name}")
    for step in range(SPECIAL[name][1] if name in SPECIAL else SAVED, NUM_STEPS):
        if step != SKIPPED:
            assert read_metrics(before, step) == read_metrics(after, step)
        assert_equal(stages(before, f"weights-{step}"), stages(after, f"weights-{step}"))
    num_ranks = len(list(before.glob("draws-*.json")))
    for rank in range(num_ranks):
        path = f"draws-{rank}.json"
        assert (before / path).read_text() == (after / path).read_text()


@pytest.mark.slow
@pytest.mark.parametrize("name", RESTORED)
def test_in_another_layout_they_are_within_rounding(name, saved, restored) -> None:
    before, after = saved / RESTORED[name][1], restored / name
    for step in range(SAVED, NUM_STEPS):
        expected = read_metrics(before, step)
        assert read_metrics(after, step) == pytest.approx(expected, rel=1e-4, abs=1e-6)
        weights = stages(before, f"weights-{step}")
        torch.testing.assert_close(stages(after, f"weights-{step}"), weights, atol=1e-6, rtol=1e-5)
    assert read_metrics(after, SAVED)["lr"] == pytest.approx(
        0.01 * 0.5 * 3 / 4
    )  # the third step of the warm-up


@pytest.mark.slow
@pytest.mark.parametrize("name", RESTORED)
def test_policy_reference_and_served_weights_come_back_to_the_bit(name, saved, restored) -> None:
    before, after = saved / RESTORED[name][1], restored / name
    for kept in ("policy", "reference", "served"):
        assert_equal(stages(before, kept), stages(after, kept))
    assert_equal(stages(before, "policy"), stages(before, f"weights-{SAVED - 1}"))
    assert_equal(stages(before, "served"), stages(before, f"weights-{SKIPPED - 1}"))
    policy, served = stages(before, "policy"), stages(before, "served")
    assert any(not torch.equal(policy[key], served[key]) for key in policy)


def assert_equal(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found and found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


@pytest.mark.slow
@pytest.mark.parametrize("name", ["one_from_one", "dp2_from_dp2", "tp2_pp2_from_one"])
def test_a_checkpoint_damaged_anywhere_is_refused_by_all_ranks(name, restored) -> None:
    messages = {path.read_text() for path in (restored / name).glob("refused-*.txt")}
    (message,) = messages
    assert message.startswith("CheckpointError: ") and "__1_0.distcp: its digest is" in message
    assert not list((restored / name).glob("changed-*"))
    assert len(list((restored / name).glob("refused-*"))) == len(list((restored / name).glob("draws-*")))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["one_from_tp2_pp2", "tp2_pp2_from_dp2"])
def test_every_file_of_the_policy_is_read_by_one_rank_before_it_is_loaded(name, saved, restored) -> None:
    read = [name for path in (restored / name).glob("read-*.json") for name in json.loads(path.read_text())]
    files = files_in(checkpoint_of(saved, RESTORED[name][1]))
    assert sorted(read) == [file for file in files if file.startswith("policy/")]


@pytest.mark.slow
@pytest.mark.parametrize("name", HOSTILE)
def test_a_checkpoint_of_a_stranger_is_refused_and_runs_nothing(name, restored) -> None:
    message = (restored / "exchanged" / f"refused-{name}-0.txt").read_text()
    assert re.match(rf"CheckpointError: .*{HOSTILE[name][1]}", message), message
    if "tensor" not in name:  # which is found out in the middle of reading
        assert not (restored / "exchanged" / f"changed-{name}-0").exists()
    assert not (restored / f"{name}.made").exists()


@pytest.mark.slow
def test_files_that_are_exchanged_after_they_were_checked_are_not_read(saved, restored) -> None:
    assert not (restored / "exchanged.made").exists()
    for step in range(SAVED, NUM_STEPS):
        before, after = (
            stages(folder, f"weights-{step}") for folder in (saved / "one", restored / "exchanged")
        )
        assert_equal(after, before)


@pytest.mark.slow
def test_every_one_of_200_flipped_bits_is_found(saved, tmp_path) -> None:
    folder = tmp_path / "checkpoint"
    shutil.copytree(checkpoint_of(saved, "tp2_pp2"), folder)
    chosen = random.Random(0)
    names = [*files_in(folder), MANIFEST]
    assert len(names) > 6
    for index in range(200):
        path = folder / names[index % len(names)]
        bit = chosen.randrange(8 * path.stat().st_size)
        flip(path, bit)
        with pytest.raises(CheckpointError, match=path.name):
            check(folder)
        flip(path, bit)
    check(folder)


@pytest.mark.slow
def test_a_disk_that_fails_on_one_rank_fails_the_save_on_all_and_leaves_no_checkpoint(
    saved, sequences, tmp_path
) -> None:
    plan = {"save_at": [SAVED], "trouble": "full"}
    broken = job(saved / "model", "tp2", shares(sequences, "tp2", pairs=True), plan, saved_in="tp2")
    run_all(tmp_path, {"full": broken})
    for rank in range(2):
        message = (tmp_path / "full" / f"failed-{rank}.txt").read_text()
        assert message == "the checkpoint could not be written: policy rank 1: no space left on device"
    assert CheckpointStore(tmp_path / "full" / "checkpoints", Checkpoint()).newest() is None


@pytest.mark.slow
def test_killed_while_writing_leaves_the_older_checkpoint_the_newest(saved, sequences, tmp_path) -> None:
    plan = {"save_at": [SAVED - 1, SAVED], "trouble": "killed"}
    killed = job(saved / "model", "one", shares(sequences, "one", pairs=True), plan, saved_in="one")
    store = serve_store("127.0.0.1", timeout_s=60.0)
    killed.write(tmp_path / "killed", store.port)
    command = [sys.executable, "-m", "tests.distributed.checkpoint_job", str(tmp_path), "0"]
    environment = os.environ | {SECRET: "of the test"}
    done = subprocess.run(command, cwd=ROOT, env=environment, timeout=120, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    checkpoints = tmp_path / "killed" / "checkpoints"
    kept = CheckpointStore(checkpoints, Checkpoint())
    assert list(checkpoints.glob(".step-00000003.part/policy/*.distcp"))
    assert kept.newest() == checkpoints / "step-00000002"
    kept.sweep()
    assert [path.name for path in checkpoints.iterdir()] == ["step-00000002"]
