"""Unpickling what a stranger could have written: only classes of a short list are ever looked up.

PyTorch's distributed checkpoints keep their table of contents as a pickle, which could name any function to
be called. The manifest does not help, for whoever wrote the one could have written the other.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

from rlstack.checkpoint.manifest import reading
from rlstack.errors import CheckpointError

_DTYPES = {"bfloat16", "bool", "float16", "float32", "float64", "int32", "int64", "uint8"}
# Enums, tuples and dataclasses, which do nothing but hold what they are given.
CONTENTS: Mapping[str, Set[str]] = {
    "collections": {"OrderedDict"},
    "torch": {"Size", "strided", *_DTYPES},
    "torch.serialization": {"_get_layout"},
    "torch.distributed.checkpoint.metadata": {
        "BytesStorageMetadata",
        "ChunkStorageMetadata",
        "Metadata",
        "MetadataIndex",
        "TensorProperties",
        "TensorStorageMetadata",
        "_MEM_FORMAT_ENCODING",
    },
    "torch.distributed.checkpoint.filesystem": {"_StorageInfo"},
}


def check_pickle(path: Path, *, allowed: Mapping[str, Set[str]] = CONTENTS) -> None:
    """Read the pickle at `path`, looking up and calling nothing but what is `allowed`, by module.

    Raises CheckpointError naming the first other thing that it asks for, which has not been imported, or if
    it is no pickle; UnreadableCheckpoint if it cannot be read.
    """
    with reading(path):
        content = path.read_bytes()
    try:
        _Unpickler(io.BytesIO(content), allowed).load()
    except _Refused as refused:
        raise CheckpointError(
            f"{path}: asks for {refused}, which no checkpoint needs; it was not written by rlstack, or "
            f"has been changed since; use another checkpoint"
        ) from None
    except Exception as error:  # of a damaged pickle, any
        raise CheckpointError(f"{path}: cannot be read ({error}); use another checkpoint") from None


class _Refused(Exception):
    pass


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, allowed: Mapping[str, Set[str]]) -> None:
        super().__init__(file)
        self._allowed = allowed

    def find_class(self, module: str, name: str) -> Any:
        if name not in self._allowed.get(module, ()):
            raise _Refused(f"{module}.{name}")
        return super().find_class(module, name)

    def persistent_load(self, pid: Any) -> Any:
        raise _Refused(f"an object by the name {pid!r}")
