"""Weight layouts of trainer ranks and engine workers from a model's shape alone: no GPU, megatron or vLLM.

A run never uses these: it asks megatron and vLLM for what they really hold. They serve planning ahead, and
tests hold them against the real ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from rlstack.config.parallel import stage_layers
from rlstack.model.architecture import Architecture
from rlstack.model.weight_names import Fusion, Part, Rule, slice_bounds, stage_rules
from rlstack.orchestration.layout_text import vllm_vocab_size
from rlstack.transfer.layout import Box, Piece, View, shape

_FUSED_MODULES = dict.fromkeys(("q_proj", "k_proj", "v_proj"), "qkv_proj") | dict.fromkeys(
    ("gate_proj", "up_proj"), "gate_up_proj"
)


def model_shapes(architecture: Architecture) -> dict[str, tuple[int, ...]]:
    """Shape of every Hugging Face tensor of the model, by name; a tied head is not one."""
    rules = stage_rules(architecture)
    return {part.name: part.shape for rule in rules.values() for part in rule.parts}


def predicted_source_pieces(
    architecture: Architecture,
    *,
    tensor_parallel: int,
    pipeline_parallel: int,
    data_parallel: int,
    context_parallel: int = 1,
    virtual_pipeline: int = 1,
    pipeline_layers: Sequence[int] | None = None,
) -> list[list[Piece]]:
    """The pieces of all trainer ranks, in megatron's order: tensor (fastest), context, data, pipeline."""
    stages = stage_layers(
        architecture.num_layers,
        num_stages=pipeline_parallel,
        chunks_per_stage=virtual_pipeline,
        sizes=pipeline_layers,
    )
    layouts = []
    for chunks in stages:
        parameters = [
            (f"{index}.{name}", rule)
            for index, layers in enumerate(chunks)
            for name, rule in stage_rules(architecture, [layers]).items()
        ]
        ranks = [
            [
                piece
                for name, rule in parameters
                for piece in _parameter_pieces(
                    architecture, name, rule, tp_rank=rank, tp_size=tensor_parallel
                )
            ]
            for rank in range(tensor_parallel)
        ]
        layouts += ranks * (context_parallel * data_parallel)
    return layouts


def predicted_receiver_pieces(architecture: Architecture, *, tensor_parallel: int, rank: int) -> list[Piece]:
    """The pieces of one worker of a vLLM engine.

    vLLM's linear.py and vocab_parallel_embedding.py: q, k and v one above the other, key-value heads repeated
    where there are fewer of them than ranks; gate above up; the vocabulary padded.
    """
    rules = stage_rules(architecture)
    if architecture.tied:
        del rules["output_layer.weight"]
    pieces = []
    for rule in rules.values():
        row = 0
        for part in rule.parts:
            box = _receiver_box(architecture, part, rule, tensor_parallel=tensor_parallel, rank=rank)
            columns = math.prod(shape(box)[1:])
            if all(shape(box)):
                view = View(_vllm_tensor(part.name), row * columns, _strides(shape(box)))
                pieces.append(Piece(part.name, box, view))
            row += shape(box)[0]
    return pieces


def _parameter_pieces(
    architecture: Architecture, name: str, rule: Rule, *, tp_rank: int, tp_size: int
) -> Iterator[Piece]:
    """Boxes of the rule's parts in the parameter `name`, its chunk's number first."""
    head_dim = architecture.head_dim
    num_queries = architecture.num_heads // architecture.num_kv_heads
    group_rows = head_dim * (num_queries + 2)
    row = 0  # of the parameter, where the part starts
    for i, part in enumerate(rule.parts):
        box = _whole(part)
        if part.cut is not None:
            bounds = slice_bounds(part, rule, architecture, tp_rank=tp_rank, tp_size=tp_size)
            box = _cut(box, part.cut, bounds.start, bounds.stop)
        num_rows, *columns = shape(box)
        if not num_rows:  # nothing but padding
            continue
        # A part of a fused qkv has rows in each key-value head's group; others are in one block.
        height = head_dim * (num_queries if i == 0 else 1) if rule.fusion is Fusion.qkv else num_rows
        for group, low in enumerate(range(box[0][0], box[0][1], height)):
            offset = (group * group_rows + row) * math.prod(columns)
            view = View(name, offset, _strides(shape(box)))
            yield Piece(part.name, _cut(box, 0, low, low + height), view)
        row += height


def _receiver_box(
    architecture: Architecture, part: Part, rule: Rule, *, tensor_parallel: int, rank: int
) -> Box:
    box = _whole(part)
    if part.cut is None:
        return box
    size, num_shards = part.shape[part.cut], tensor_parallel
    if rule.padded:
        size = vllm_vocab_size(architecture)
    if rule.fusion is Fusion.qkv and part is not rule.parts[0]:
        num_shards = min(tensor_parallel, architecture.num_kv_heads)
        rank //= tensor_parallel // num_shards
    width, limit = size // num_shards, part.shape[part.cut]
    return _cut(box, part.cut, min(rank * width, limit), min((rank + 1) * width, limit))


def _vllm_tensor(name: str) -> str:
    *path, module, parameter = name.split(".")
    return f"{'.'.join([*path, _FUSED_MODULES.get(module, module)])}:{parameter}"


def _whole(part: Part) -> Box:
    return tuple((0, size) for size in part.shape)


def _cut(box: Box, axis: int, low: int, high: int) -> Box:
    return (*box[:axis], (low, high), *box[axis + 1 :])


def _strides(sizes: tuple[int, ...]) -> tuple[int, ...]:
    """Of a contiguous tensor, in elements."""
    return tuple(math.prod(sizes[axis + 1 :]) for axis in range(len(sizes)))
