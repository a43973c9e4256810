"""Which part of which Hugging Face tensor this rank's model holds, and where: the source of a transfer.

Everything that depends on the layout (tensor, pipeline and virtual pipeline parallelism, uneven stages, data
parallel replicas) is megatron's own answer, `sharded_state_dict`. Names and shapes come from `weight_names`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from rlstack.model.architecture import Architecture
from rlstack.model.weight_names import Fusion, Part, Rule, global_name, stage_rules
from rlstack.policy.backend import MegatronModule, ShardedTensor, ShardedTensorFactory
from rlstack.transfer.layout import Box, Piece, View, intersection

_STACKED_LAYERS = re.compile(r"decoder\.layers\.(?!\d)(.+)")


def source_pieces(chunks: Sequence[MegatronModule], architecture: Architecture) -> list[Piece]:
    """What this rank holds in `chunks`, its model's (virtual) pipeline chunks; padding is left out.

    `View.tensor` is what `source_tensor` takes. Not a collective, and nothing is copied.

    Raises KeyError for a weight of megatron's that `weight_names` does not know.
    """
    rules = stage_rules(architecture)
    return [
        piece
        for index, chunk in enumerate(chunks)
        for name, entry in chunk.sharded_state_dict().items()
        for shard, offset in _shards(entry)
        for piece in _pieces(shard, View(f"{index}.{name}", offset, shard.data.stride()), rules, architecture)
    ]


def source_tensor(chunks: Sequence[MegatronModule], name: str) -> Tensor:
    """The live storage of a tensor that a piece's view names."""
    index, _, parameter = name.partition(".")
    return chunks[int(index)].get_parameter(parameter).detach()


def _shards(entry: Any) -> Iterator[tuple[Any, int]]:
    """The ShardedTensors of an entry, each with the elements between the parameter's start and its own.

    Gate and up are one parameter but two shards. Transformer Engine's extra state is none.
    """
    if isinstance(entry, ShardedTensorFactory):
        for shard in entry.build():
            yield shard, shard.data.storage_offset() - entry.data.storage_offset()
    elif isinstance(entry, ShardedTensor):
        yield entry, 0


def _pieces(shard: Any, view: View, rules: Mapping[str, Rule], architecture: Architecture) -> Iterator[Piece]:
    """`view` is the shard's window, of its whole local shape."""
    rule = rules[_name(shard)]
    offsets = shard.global_offset[shard.prepend_axis_num :]
    box = tuple((low, low + size) for low, size in zip(offsets, shard.local_shape, strict=True))
    if rule.fusion is Fusion.qkv:
        yield from _qkv_pieces(rule, box, view, architecture)
        return
    if rule.fusion is Fusion.gate_up:
        num_rows = rule.parts[0].shape[0]
        index, low = divmod(box[0][0], num_rows)
        yield from _clipped(rule.parts[index], ((low, box[0][1] - index * num_rows), *box[1:]), view)
        return
    (part,) = rule.parts
    yield from _clipped(part, box, view)


def _qkv_pieces(rule: Rule, box: Box, view: View, architecture: Architecture) -> Iterator[Piece]:
    """Rows come by key-value head: its queries, its key, its value."""
    head_dim = architecture.head_dim
    widths = (architecture.num_heads // architecture.num_kv_heads * head_dim, head_dim, head_dim)
    (low, high), columns = box[0], box[1:]
    assert low % sum(widths) == high % sum(widths) == 0, "megatron cuts between key-value heads only"
    row = low
    for group in range(low // sum(widths), high // sum(widths)):
        for part, width in zip(rule.parts, widths, strict=True):
            rows = (group * width, (group + 1) * width)
            yield Piece(part.name, (rows, *columns), view.narrowed(box, ((row, row + width), *columns)))
            row += width


def _clipped(part: Part, box: Box, view: View) -> Iterator[Piece]:
    """Nothing where all of `box` is padding."""
    inside = intersection(box, tuple((0, size) for size in part.shape))
    if inside is not None:
        yield Piece(part.name, inside, view.narrowed(box, inside))


def _name(shard: Any) -> str:
    """The name in `stage_rules`: megatron's keys leave the layer's number to the first, stacked dimension."""
    stacked = _STACKED_LAYERS.fullmatch(shard.key)
    key = f"decoder.layers.{shard.global_offset[0]}.{stacked[1]}" if stacked else shard.key
    return global_name(key, 0)
