"""The table of contents of a checkpoint's tensors: read once, checked, and then all that is read by.

The format is PyTorch's: where each piece of each tensor lies in which file. The table is checked against
those files and built afresh, so that it decides no more than which bytes become which weights. A process that
can write to the folder while it is read can still exchange these bytes, which changes weights and runs no
code: PyTorch reads each piece as a tensor, with weights_only.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint import DefaultLoadPlanner, FileSystemReader, Metadata
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    ChunkStorageMetadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import ReadItem

from rlstack.checkpoint.inert_pickle import Call, Global, Instance, RefusedPickle, expect, read_pickle
from rlstack.checkpoint.manifest import reading
from rlstack.errors import CheckpointError

_CONTENTS = ".metadata"
_MAX_DIMENSIONS = 8
_METADATA = "torch.distributed.checkpoint.metadata"
_PLACE = "torch.distributed.checkpoint.filesystem._StorageInfo"
_DTYPES = {
    f"torch.{name}": getattr(torch, name)
    for name in ("bfloat16", "bool", "float16", "float32", "float64", "int32", "int64", "uint8")
}
_GLOBALS = {
    "torch.Size",
    "torch.serialization._get_layout",
    _PLACE,
    *_DTYPES,
    *(
        f"{_METADATA}.{name}"
        for name in (
            "ChunkStorageMetadata",
            "Metadata",
            "MetadataIndex",
            "TensorProperties",
            "TensorStorageMetadata",
            "_MEM_FORMAT_ENCODING",
        )
    ),
}


def read_contents(folder: Path) -> Metadata:
    """Return the table of contents of the tensors in `folder`, made of checked values alone.

    Every entry is a tensor of a plain dtype, its pieces lie within it and are as large as it together, and
    each of them lies, whole, in a file of the folder.

    Raises CheckpointError if the table says anything else, or asks for anything to be called;
    UnreadableCheckpoint if the folder or the table cannot be read.
    """
    path = folder / _CONTENTS
    with reading(path), os.scandir(folder) as entries:
        files = [entry for entry in entries if entry.is_file(follow_symlinks=False)]
        sizes = {entry.name: entry.stat().st_size for entry in files}
        content = path.read_bytes()
    try:
        return _metadata(read_pickle(content, _GLOBALS), sizes)
    except Exception as error:  # of a damaged pickle, any
        raise CheckpointError(
            f"{path}: is no table of contents ({error}); it was not written by rlstack, or has been changed "
            "since: use another checkpoint"
        ) from None


class TensorReader(FileSystemReader):
    """PyTorch's reader of the tensors in a folder, by a table of contents that has been read and checked."""

    def __init__(self, folder: Path, contents: Metadata) -> None:
        super().__init__(folder)
        self._contents = contents

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """Return the table, without reading a file."""
        return self._contents


class TensorsOnly(DefaultLoadPlanner):
    """PyTorch's planner without the entries that are pickles of any kind, which it would unpickle."""

    def load_bytes(self, read_item: ReadItem, value: Any) -> None:
        """Raise CheckpointError: no checkpoint of rlstack's has such an entry."""
        raise CheckpointError(f"{read_item.dest_index.fqn} is no tensor; use another checkpoint")


def reason_of(error: BaseException) -> str:
    """Return why a file could not be read; torch's message would suggest to read it without weights_only."""
    if type(error).__name__ == "UnpicklingError":
        return "it is damaged, or asks for more than plain values and tensors"
    return str(error)


def _metadata(table: Any, sizes: Mapping[str, int]) -> Metadata:
    """sizes: of the folder's files, by name."""
    entries, table_of_places = _fields(
        table,
        f"{_METADATA}.Metadata",
        ("state_dict_metadata", "storage_data"),
        ignored={"planner_data", "storage_meta", "version"},
    )
    tensors = {expect(name, str): _tensor(entry) for name, entry in expect(entries, dict).items()}
    places = _places(table_of_places, sizes)
    # A list of pieces that many tensors share takes little of the file, and would take long to read.
    if sum(len(pieces) for _, _, pieces in tensors.values()) > len(places):
        raise RefusedPickle("it has more pieces of tensors than places of them")
    checked: dict[str, TensorStorageMetadata | BytesStorageMetadata] = {
        name: _checked(name, *tensor, places) for name, tensor in tensors.items()
    }
    return Metadata(state_dict_metadata=checked, storage_data=places)


def _places(table: Any, sizes: Mapping[str, int]) -> dict[MetadataIndex, _StorageInfo]:
    places = {}
    for key, value in expect(table, dict).items():
        tensor, offsets = _fields(key, f"{_METADATA}.MetadataIndex", ("fqn", "offset"), ignored={"index"})
        path, start, length = _fields(value, _PLACE, ("relative_path", "offset", "length"))
        if expect(path, str) not in sizes:
            raise RefusedPickle(f"it names {path}, no file beside it")
        if _number(start) + _number(length) > sizes[path]:
            raise RefusedPickle(f"it names bytes behind the end of {path}")
        places[MetadataIndex(expect(tensor, str), _size(offsets))] = _StorageInfo(path, start, length)
    return places


def _tensor(value: Any) -> tuple[torch.dtype, torch.Size, list[Any]]:
    """The dtype, the size and the pieces, which have not been looked at."""
    properties, size, pieces = _fields(
        value, f"{_METADATA}.TensorStorageMetadata", ("properties", "size", "chunks")
    )
    if expect(properties, Instance).kind != f"{_METADATA}.TensorProperties":
        raise RefusedPickle(f"it has {properties.kind} where the properties of a tensor are due")
    dtype, *_ = expect(properties.state, tuple)  # the others say how it lay in memory
    return _DTYPES[expect(dtype, Global).name], _size(size), expect(pieces, list)


def _checked(
    name: str,
    dtype: torch.dtype,
    size: torch.Size,
    pieces: list[Any],
    places: Mapping[MetadataIndex, _StorageInfo],
) -> TensorStorageMetadata:
    chunks = [_chunk(piece, size) for piece in pieces]
    for chunk in chunks:
        place = places.get(MetadataIndex(name, chunk.offsets))
        if place is None or place.length < math.prod(chunk.sizes) * dtype.itemsize:
            raise RefusedPickle(f"it has no place for a piece of {name}")
    if sum(math.prod(chunk.sizes) for chunk in chunks) != math.prod(size):
        raise RefusedPickle(f"the pieces of {name} are not as large as it together")
    return TensorStorageMetadata(TensorProperties(dtype=dtype), size, chunks)


def _chunk(value: Any, whole: torch.Size) -> ChunkStorageMetadata:
    offsets, sizes = map(_size, _fields(value, f"{_METADATA}.ChunkStorageMetadata", ("offsets", "sizes")))
    lies_within = len(offsets) == len(sizes) == len(whole) and all(
        start + size <= end for start, size, end in zip(offsets, sizes, whole, strict=True)
    )
    if not lies_within:
        raise RefusedPickle("it has a piece that is not within its tensor")
    return ChunkStorageMetadata(offsets, sizes)


def _size(value: Any) -> torch.Size:
    call = expect(value, Call)
    (numbers,) = call.arguments
    if call.function != "torch.Size" or len(expect(numbers, tuple)) > _MAX_DIMENSIONS:
        raise RefusedPickle(f"it has {call.function} of another form where the size of a tensor is due")
    return torch.Size(map(_number, numbers))


def _number(value: Any) -> int:
    if (number := expect(value, int)) < 0:
        raise RefusedPickle(f"it has {number} where a number from 0 is due")
    return number


def _fields(value: Any, kind: str, names: Sequence[str], ignored: Set[str] = frozenset()) -> list[Any]:
    """The state of an instance of `kind`, which has the fields `names` and none that is not `ignored`."""
    instance = expect(value, Instance)
    if instance.kind != kind or expect(instance.state, dict).keys() - ignored != set(names):
        raise RefusedPickle(f"it has {instance.kind} of another form where {kind} is due")
    return [instance.state[name] for name in names]
