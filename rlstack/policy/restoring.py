"""Reading a checkpoint, after all ranks together have made sure that it is one, whole, and of this model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from rlstack.checkpoint.manifest import Manifest, check_files, check_names, share
from rlstack.checkpoint.trusted import check_pickle
from rlstack.collectives import gather_json
from rlstack.errors import CheckpointError
from rlstack.policy.backend import dist_checkpointing

_CONTENTS, _COMMON = ".metadata", "common.pt"  # megatron-core's


def verify(folder: Path) -> None:
    """Read every file of the checkpoint `folder`, each on one rank. Collective.

    Raises CheckpointError on all ranks alike, naming the first file that is damaged, missing or too many.
    """
    for trouble in gather_json(_trouble(folder)):
        if trouble is not None:
            raise CheckpointError(str(trouble))


def check_trusted(folder: Path) -> None:
    """Raise CheckpointError if a pickle of megatron-core's in `folder` asks for what no checkpoint needs."""
    check_pickle(folder / _CONTENTS)
    try:
        torch.load(folder / _COMMON, map_location="cpu", weights_only=True)
    except Exception as error:  # of a damaged pickle, any
        raise CheckpointError(
            f"{folder / _COMMON}: cannot be read ({error}); use another checkpoint"
        ) from None


def load(state: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The content of `folder` for `state`, this rank's sharded state. Collective."""
    loaded = dist_checkpointing.load(state, str(folder))
    assert isinstance(loaded, dict)
    return loaded


def _trouble(folder: Path) -> str | None:
    try:
        manifest = Manifest.read(folder)
        check_names(folder, manifest)
        mine = share(manifest, rank=dist.get_rank(), num_ranks=dist.get_world_size())
        check_files(folder, manifest, mine)
    except CheckpointError as error:
        return str(error)
    return None
