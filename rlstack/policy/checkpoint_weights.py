"""The policy's weights in a checkpoint, read tensor by tensor by one process: no ranks, no GPU, no megatron.

A checkpoint has one tensor per kind of parameter, with the layers as its first dimension and otherwise as one
rank would hold it; the pieces are those that the ranks held. torch.distributed.checkpoint reads them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, TensorStorageMetadata
from torch.distributed.checkpoint.planner import LoadPlan, ReadItem
from torch.distributed.checkpoint.planner_helpers import create_read_items_for_chunk_list

from rlstack.errors import CheckpointError
from rlstack.model.architecture import Architecture
from rlstack.model.weight_names import shard_shape, wire_rules
from rlstack.policy.checkpoint_contents import TensorReader, TensorsOnly, read_contents, reason_of
from rlstack.policy.hf_map import join

_LAYER = re.compile(r"decoder\.layers\.(\d+)\.(.+)")
# Written under Transformer Engine's names, whatever the layers are built of.
_FUSED_NORMS = {
    "input_layernorm.weight": "self_attention.linear_qkv.layer_norm_weight",
    "pre_mlp_layernorm.weight": "mlp.linear_fc1.layer_norm_weight",
}


class CheckpointWeights:
    """Those of the folder "policy" of a checkpoint."""

    def __init__(self, folder: Path) -> None:
        """Raises CheckpointError as `read_contents`."""
        self._folder = folder
        self._contents = read_contents(folder)
        self._reader = TensorReader(folder, self._contents)
        self._reader.set_up_storage_reader(self._contents, is_coordinator=True)

    def tensors(self, architecture: Architecture) -> Iterator[tuple[str, Tensor]]:
        """The whole Hugging Face tensors by name, in the precision that they were trained in.

        Raises CheckpointError for what is missing.
        """
        for name, rule in wire_rules(architecture).items():
            shape = shard_shape(rule, architecture, tp_size=1)
            if rule.padded:  # by how much depends on the layout that it was written in
                shape = (architecture.vocab_size, *shape[1:])
            yield from join(rule, [self._read(name, shape)], architecture)

    @property
    def dtype(self) -> str:
        """Of the matrices, as in "float32"."""
        stored = self._stored("embedding.word_embeddings.weight")
        return str(stored.properties.dtype).removeprefix("torch.")

    def _stored(self, key: str) -> TensorStorageMetadata:
        stored = self._contents.state_dict_metadata.get(key)
        if not isinstance(stored, TensorStorageMetadata):
            raise CheckpointError(f"{self._folder}: lacks {key}; use another checkpoint")
        return stored

    def _read(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """The parameter called `name` in the name map, from its beginning, in the given shape."""
        key, layer = key_of(name)
        stored, start = self._stored(key), [0] * len(shape)
        wanted = ChunkStorageMetadata(
            offsets=torch.Size(start if layer is None else [layer, *start]),
            sizes=torch.Size(shape if layer is None else [1, *shape]),
        )
        items = create_read_items_for_chunk_list(key, stored, [wanted])
        if sum(math.prod(item.lengths) for item in items) != math.prod(shape):
            raise CheckpointError(f"{self._folder}: holds {key} in part; use another checkpoint")
        tensor = torch.empty(wanted.sizes, dtype=stored.properties.dtype)
        try:
            self._reader.read_data(LoadPlan(items), _Into(tensor)).wait()
        except Exception as error:  # of a damaged file, any
            raise CheckpointError(
                f"{self._folder}: {key} cannot be read ({reason_of(error)}); use another checkpoint"
            ) from None
        return tensor.reshape(shape)


class _Into(TensorsOnly):
    """Says where the pieces of one tensor go; nothing else of a plan is asked for."""

    def __init__(self, tensor: Tensor) -> None:
        super().__init__()
        self._tensor = tensor

    def resolve_tensor(self, read_item: ReadItem) -> Tensor:
        places = zip(read_item.dest_offsets, read_item.lengths, strict=True)
        return self._tensor[tuple(slice(start, start + length) for start, length in places)]


def key_of(name: str) -> tuple[str, int | None]:
    """The name in the file of the parameter called `name` in the name map, and its layer."""
    match = _LAYER.fullmatch(name)
    if match is None:
        return name, None
    return f"decoder.layers.{_FUSED_NORMS.get(match[2], match[2])}", int(match[1])
