"""Whatever has become of a checkpoint's own files: they are read, or refused by one error of ours."""

from __future__ import annotations

import json
import pickle
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)

from rlstack.checkpoint.manifest import MANIFEST, Digest, Manifest
from rlstack.checkpoint.run_state import ROLLOUTS, RUN_STATE, RunState, read_rollouts, write_rollouts
from rlstack.data.records import Prompt, Rollout, RolloutGroup
from rlstack.errors import CheckpointError
from rlstack.policy.checkpoint_contents import read_contents
from tests.fuzz.hostile import damaged, outcome, values

STATE = RunState(step=4, served_version=2, reference_version=2, positions={"metrics.jsonl": 7})
GROUP = RolloutGroup(
    step=5,
    prompt=Prompt(task="a", row=0, problem="1+1", token_ids=(1, 2), answer="2"),
    rollouts=(Rollout(token_ids=(3,), generator_logprobs=(-0.5,), text="2", finished=True, version=2),),
)


def table() -> bytes:
    whole = torch.Size([2, 3])
    chunk = ChunkStorageMetadata(torch.Size([0, 0]), whole)
    tensor = TensorStorageMetadata(TensorProperties(dtype=torch.float32), whole, [chunk])
    place = _StorageInfo("__0_0.distcp", 4, 24)
    return pickle.dumps(Metadata({"a": tensor}, storage_data={MetadataIndex("a", chunk.offsets): place}))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("checkpoint")


def manifest(folder: Path) -> bytes:
    Manifest(step=4, selection=0.5, files={"run.json": Digest(3, "0" * 64)}).write(folder)
    return (folder / MANIFEST).read_bytes()


@given(data=st.data())
def test_a_manifest_that_is_not_to_the_letter_is_refused(folder: Path, data: st.DataObject) -> None:
    whole = manifest(folder)
    content = data.draw(
        damaged(whole) | st.binary(max_size=80) | values.map(lambda v: json.dumps(v).encode())
    )
    (folder / MANIFEST).write_bytes(content)
    assert (outcome(lambda: Manifest.read(folder)) is None) == (content != whole)


@given(content=damaged(json.dumps(asdict(STATE)).encode()) | values.map(lambda v: json.dumps(v).encode()))
def test_a_run_s_state_is_read_or_refused(folder: Path, content: bytes) -> None:
    (folder / RUN_STATE).write_bytes(content)
    state = outcome(lambda: RunState.read(folder))
    assert state is None or (type(state.step), type(state.positions)) == (int, dict)


@given(data=st.data())
def test_kept_rollouts_are_read_or_refused(folder: Path, data: st.DataObject) -> None:
    write_rollouts(folder, {5: {0: GROUP}})
    whole = (folder / ROLLOUTS).read_bytes()
    (folder / ROLLOUTS).write_bytes(data.draw(damaged(whole) | st.binary(max_size=100)))
    outcome(lambda: read_rollouts(folder))


@given(content=damaged(table()) | st.binary(max_size=100))
def test_a_table_of_contents_is_read_or_refused(folder: Path, content: bytes) -> None:
    (folder / "__0_0.distcp").write_bytes(bytes(28))
    (folder / ".metadata").write_bytes(content)
    contents = outcome(lambda: read_contents(folder))
    assert contents is None or {type(each) for each in contents.state_dict_metadata.values()} <= {
        TensorStorageMetadata
    }


@pytest.mark.parametrize("call", [eval, torch.load, exec, Path.unlink, getattr])
def test_a_table_that_calls_something_is_refused(folder: Path, call: object) -> None:
    class Caller:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return call, ("x",)

    (folder / ".metadata").write_bytes(pickle.dumps(Caller()))
    with pytest.raises(CheckpointError):
        read_contents(folder)
