"""Reading a checkpoint, after all ranks together have made sure that it is one, whole, and of this model."""

from __future__ import annotations

import io
import zipfile
from itertools import chain
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint import CheckpointException, Metadata

from rlstack.checkpoint.manifest import Manifest, check_files, check_names, reading, share
from rlstack.collectives import gather_json
from rlstack.errors import CheckpointError, UnreadableCheckpoint
from rlstack.policy.backend import (
    MCoreLoadPlanner,
    TorchCommonLoadStrategy,
    TorchDistLoadShardedStrategy,
    dist_checkpointing,
    mcore_to_pyt_state_dict,
    restore_dict_types,
    shards_by_key,
    tensors_by_name,
    unwrap_tensors,
)
from rlstack.policy.checkpoint_contents import TensorReader, TensorsOnly, read_contents, reason_of

_COMMON = "common.pt"  # megatron-core's, with what is no tensor
_PLAIN = {bool, int, float, str, type(None), torch.Tensor}


def verify(folder: Path) -> None:
    """Read every file of the policy in the checkpoint `folder`, each on one rank. Collective.

    Raises CheckpointError on all ranks alike, naming the first file that is damaged, missing or too many, or
    else UnreadableCheckpoint, naming the first that cannot be read.
    """
    troubles = [tuple(trouble) for trouble in gather_json(_trouble(folder)) if trouble is not None]
    for is_damaged, text in sorted(troubles, key=lambda trouble: not trouble[0]):
        raise (CheckpointError if is_damaged else UnreadableCheckpoint)(str(text))


class SavedState:
    """The state in a folder that megatron-core has written.

    Its table of contents and its common part are in memory and not read again, so that a process which can
    write to the folder cannot replace them after they have been checked.
    """

    def __init__(self, folder: Path) -> None:
        """Raises CheckpointError if one of the two is damaged, or asks for what no checkpoint needs."""
        self._folder = folder
        self._contents = read_contents(folder)
        self._common = _read_common(folder / _COMMON)

    def load(self, state: dict[str, Any]) -> dict[str, Any]:
        """Return the content for `state`, this rank's sharded state; once. Collective.

        Raises CheckpointError on all ranks alike if tensors are missing, damaged or of other shapes.
        """
        return self._load(state, self._common)

    def load_part(self, state: dict[str, Any]) -> dict[str, Any]:
        """As `load`, of some of the tensors and nothing else, as often as there are more."""
        return self._load(state, {}, validate_access_integrity=False)

    def _load(self, state: dict[str, Any], common: dict[str, Any], **options: bool) -> dict[str, Any]:
        try:
            loaded = dist_checkpointing.load(
                state, str(self._folder), _Tensors(self._contents), _Common(common), **options
            )
        except CheckpointException as error:  # which is no Exception
            troubles = [trouble for trouble, _ in error.failures.values()]
            if any(isinstance(trouble, OSError) for trouble in troubles):
                raise
            raise CheckpointError(
                f"{self._folder}: cannot be read ({reason_of(troubles[0])}); use another checkpoint"
            ) from None
        assert isinstance(loaded, dict)
        return loaded


class _Tensors(TorchDistLoadShardedStrategy):
    """megatron-core's strategy, with a table of contents that has been read."""

    def __init__(self, contents: Metadata) -> None:
        super().__init__()
        self._contents = contents

    def load(self, sharded_state_dict: dict[str, Any], checkpoint_dir: Path) -> dict[str, Any]:
        shards, paths, names = shards_by_key(sharded_state_dict)
        tensors = list(chain.from_iterable(shards.values()))
        wanted = mcore_to_pyt_state_dict(shards, is_loading=True)
        planner = _Planner(tensors)
        dcp.load(wanted, storage_reader=TensorReader(Path(checkpoint_dir), self._contents), planner=planner)
        found = {key: unwrap_tensors(tensor) for key, tensor in wanted.items()}
        state: dict[str, Any] = tensors_by_name(found, paths, names)
        restore_dict_types(state, sharded_state_dict)
        return state


class _Planner(TensorsOnly, MCoreLoadPlanner):
    """megatron-core's, which asks for tensors only."""

    def __init__(self, tensors: list[Any]) -> None:
        MCoreLoadPlanner.__init__(
            self,
            shapes_validation_sharded_tensors=[each for each in tensors if not each.allow_shape_mismatch],
            allow_shape_mismatch_sharded_tensors={
                each.key: each for each in tensors if each.allow_shape_mismatch
            },
        )


class _Common(TorchCommonLoadStrategy):
    """megatron-core's strategy, with a common part that has been read."""

    def __init__(self, common: dict[str, Any]) -> None:
        self._common = common

    def load_common(self, checkpoint_dir: Path) -> dict[str, Any]:
        return self._common


def _read_common(path: Path) -> dict[str, Any]:
    with reading(path):
        content = path.read_bytes()
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > len(content):
                raise ValueError("it is compressed")  # and could take any amount of memory
        common = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        _check_plain(common, max_values=len(content))
    except Exception as error:  # of a damaged pickle, any
        raise CheckpointError(
            f"{path}: cannot be read ({reason_of(error)}); use another checkpoint"
        ) from None
    assert isinstance(common, dict)
    return common


def _check_plain(common: Any, *, max_values: int) -> None:
    """Raise ValueError unless `common` is a dict of plain values, at most so many."""
    if type(common) is not dict or common.keys() != {"optimizer"}:
        raise ValueError("it is not the state of an optimizer")
    left = [common]
    for _ in range(max_values):
        if not left:
            return
        value = left.pop()
        if type(value) is dict:
            left += [*value.keys(), *value.values()]
        elif type(value) in (list, tuple):
            left += value
        elif type(value) not in _PLAIN:
            raise ValueError(f"it holds a {type(value).__name__}")
    raise ValueError("it refers to the same values over and over")


def _trouble(folder: Path) -> tuple[bool, str] | None:
    """Return True and the message for a damaged file, False and the message for an unreadable one."""
    try:
        manifest = Manifest.read(folder)
        check_names(folder, manifest)
        mine = share(manifest, rank=dist.get_rank(), num_ranks=dist.get_world_size())
        check_files(folder, manifest, mine)
    except CheckpointError as error:
        return not isinstance(error, UnreadableCheckpoint), str(error)
    return None
