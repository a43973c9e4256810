"""A checkpoint as a Hugging Face folder, by one process without a GPU, one tensor at a time."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rlstack.checkpoint.manifest import POLICY
from rlstack.errors import DiskError
from rlstack.model.architecture import Architecture
from rlstack.policy.checkpoint_header import Header
from rlstack.policy.checkpoint_weights import CheckpointWeights
from rlstack.policy.hf_folder import replaced_at_once, write_companions
from rlstack.policy.weight_files import MAX_FILE_BYTES, WeightFiles, num_bytes, specs_of


def export_checkpoint(
    checkpoint: Path,
    folder: Path,
    *,
    source: Path,
    dtype: str | None = None,
    max_file_bytes: int = MAX_FILE_BYTES,
) -> int:
    """Write the weights to `folder`, which it replaces, with the settings and the tokenizer of `source`.

    The files are those that the ranks would have written. dtype: as in "float32"; None: the one trained in.
    Returns the version, the optimiser steps taken.

    Raises CheckpointError if the checkpoint is not of the model in `source`, lacks something, or asks for
    what no checkpoint needs. Its digests are for others to check. Raises DiskError, and leaves nothing of
    `folder`, if that cannot be written.
    """
    header = Header.read(checkpoint / POLICY)
    architecture = Architecture.from_folder(source)
    header.check_model(architecture, str(source), path=checkpoint)
    weights = CheckpointWeights(checkpoint / POLICY)
    dtype = dtype or weights.dtype
    specs = specs_of(architecture, dtype)
    with _refused_in_a_sentence(folder, sum(map(num_bytes, specs))), replaced_at_once(folder) as draft:
        files = WeightFiles(draft, specs, max_file_bytes=max_file_bytes)
        for name, tensor in weights.tensors(architecture):
            files.write(name, tensor)
        files.close()
        write_companions(source, draft, dtype=dtype)
    return header.version


@contextmanager
def _refused_in_a_sentence(folder: Path, needed_bytes: int) -> Iterator[None]:
    """Raise an OSError inside, which writes `needed_bytes` and more to `folder`, as a DiskError."""
    needed = f"{needed_bytes / 1e9:.3g} GB are needed"
    try:
        there = next(path for path in folder.absolute().parents if path.exists())
        if (free_bytes := shutil.disk_usage(there).free) < needed_bytes:
            raise DiskError(
                f"OUT = {folder}: {needed}, and {free_bytes / 1e9:.3g} GB are free there; free some space, "
                "or give a folder on another disk"
            )
        yield
    except OSError as error:
        raise DiskError(
            f"OUT = {folder}: cannot be written ({error}); {needed}, and nothing is left of it: free some "
            "space, have the rights to write there restored, or give another folder"
        ) from None
