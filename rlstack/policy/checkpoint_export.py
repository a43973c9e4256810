"""A checkpoint as a Hugging Face folder, by one process without a GPU, one tensor at a time."""

from __future__ import annotations

from pathlib import Path

from rlstack.policy.architecture import Architecture
from rlstack.policy.checkpoint_header import POLICY, Header
from rlstack.policy.checkpoint_weights import CheckpointWeights
from rlstack.policy.hf_folder import replaced_at_once, write_companions
from rlstack.policy.weight_files import MAX_FILE_BYTES, WeightFiles, specs_of


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
    what no checkpoint needs. Its digests are for others to check.
    """
    header = Header.read(checkpoint / POLICY)
    architecture = Architecture.from_folder(source)
    header.check_model(architecture, str(source), path=checkpoint)
    weights = CheckpointWeights(checkpoint / POLICY)
    dtype = dtype or weights.dtype
    with replaced_at_once(folder) as draft:
        files = WeightFiles(draft, specs_of(architecture, dtype), max_file_bytes=max_file_bytes)
        for name, tensor in weights.tensors(architecture):
            files.write(name, tensor)
        files.close()
        write_companions(source, draft, dtype=dtype)
    return header.version
