"""Nothing outside the short list is looked up, let alone called."""

from __future__ import annotations

import os
import pickle
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)

from rlstack.checkpoint.trusted import check_pickle
from rlstack.errors import CheckpointError


class Calls:
    """Pickled, it is a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call


def contents() -> Metadata:
    chunk = ChunkStorageMetadata(offsets=torch.Size([0, 0]), sizes=torch.Size([2, 3]))
    tensors = {
        str(dtype): TensorStorageMetadata(
            properties=TensorProperties(dtype=dtype), size=torch.Size([2, 3]), chunks=[chunk]
        )
        for dtype in (torch.float32, torch.bfloat16, torch.uint8)
    }
    index = MetadataIndex("a", torch.Size([0, 0]), 0)
    return Metadata({**tensors, "bytes": BytesStorageMetadata()}, storage_data={index: None})


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_a_table_of_contents_is_accepted(tmp_path, protocol) -> None:
    path = tmp_path / ".metadata"
    path.write_bytes(pickle.dumps(contents(), protocol))
    check_pickle(path)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    ("function", "name"),
    [
        (os.system, "posix.system"),
        (subprocess.Popen, "Popen"),
        (eval, "eval"),
        (getattr, "getattr"),
        (torch.load, "torch.*load"),
    ],
)
def test_a_call_of_anything_else_is_refused_and_not_made(tmp_path, function, name, protocol) -> None:
    path, made = tmp_path / ".metadata", tmp_path / "made"
    path.write_bytes(pickle.dumps({"deep": [Calls(function, f"touch {made}")]}, protocol))
    with pytest.raises(CheckpointError, match=rf"asks for .*{name}"):
        check_pickle(path)
    assert not made.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"nonsense",
        b"\x80\x04cos\nsystem\n(S'true'\ntR.",
        b"(S'true'\nios\nsystem\n.",
        b"\x80\x04Pname\n.",
        b"\x80\x04\x8c\x05torch\x8c\x09Size.__eq__\x93.",
        b"\x80\x04(((((",
    ],
)
def test_what_no_writer_of_ours_wrote_is_refused(tmp_path: Path, content) -> None:
    path = tmp_path / ".metadata"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"\.metadata"):
        check_pickle(path)
