"""Elements of a rank's weights from the model's shape alone; tests hold them against what ranks hold."""

from __future__ import annotations

import math

from rlstack.model.architecture import Architecture
from rlstack.model.weight_names import VOCAB_MULTIPLE
from rlstack.orchestration.layout_text import vllm_vocab_size
from rlstack.tuning.parts import Layout
from rlstack.tuning.planning.derivation import Figure, derive

# Elements to which the distributed optimiser's buffer is padded, with the data-parallel size:
# megatron/core/distributed/param_and_grad_buffer.py, _pad_end_of_bucket_if_needed.
_BUFFER_MULTIPLE = 128


def layer_parameters(architecture: Architecture, *, tensor_parallel: int, kv_heads: int) -> Figure:
    """Elements of one layer on one of `tensor_parallel` ranks; kv_heads: of the rank."""
    a = architecture
    norms = "2*hidden" + (" + 2*head_dim" if a.qk_norm else "")
    bias = " + (heads/tp + 2*kv_heads)*head_dim" if a.qkv_bias else ""
    return derive(
        "layer parameters",
        "elements",
        f"(2*heads/tp + 2*kv_heads)*head_dim*hidden + 3*ffn/tp*hidden + {norms}{bias}",
        heads=a.num_heads,
        kv_heads=kv_heads,
        head_dim=a.head_dim,
        hidden=a.hidden_size,
        ffn=a.ffn_size,
        tp=tensor_parallel,
    )


def policy_parameters(architecture: Architecture, layout: Layout, *, stage: int) -> list[Figure]:
    """Elements that a rank of pipeline stage `stage` holds: of a layer, of a vocabulary, of the rank."""
    a, tp, pp = architecture, layout.tensor_parallel, layout.pipeline_parallel
    layer = layer_parameters(a, tensor_parallel=tp, kv_heads=a.num_kv_heads // tp)
    vocabulary = derive(
        "vocabulary parameters",
        "elements",
        f"ceil(vocab/({VOCAB_MULTIPLE}*tp))*{VOCAB_MULTIPLE}*hidden",
        vocab=a.vocab_size,
        tp=tp,
        hidden=a.hidden_size,
    )
    is_first, is_last = stage == 0, stage == pp - 1
    # A tied output layer is the embedding itself where both are on one stage.
    num_vocabularies = is_first + (is_last and not (a.tied and is_first))
    rank = derive(
        "rank parameters",
        "elements",
        "stage_layers*layer + vocabularies*vocabulary" + (" + hidden" if is_last else ""),
        stage_layers=sum(layout.chunk_sizes(a.num_layers, stage=stage)),
        layer=layer.value,
        vocabularies=num_vocabularies,
        vocabulary=vocabulary.value,
        **({"hidden": a.hidden_size} if is_last else {}),
    )
    return [layer, vocabulary, rank]


def buffer_elements(architecture: Architecture, layout: Layout, *, stage: int) -> Figure:
    """Of megatron's contiguous buffers, one for each chunk of the stage, as they are padded at their ends so
    that the ranks that share the optimiser out get equal parts.

    Upstream also aligns each parameter to 64 elements, which the sizes of published models are multiples of.
    With policy.overlap_grad_reduce every bucket ends in padding, which is left out: a bucket has at least 40
    million elements.
    """
    layer, _, rank = (figure.value for figure in policy_parameters(architecture, layout, stage=stage))
    # All but the stage's layers is in its first chunk on the first stage, and in its last on the last.
    chunks = [size * layer for size in layout.chunk_sizes(architecture.num_layers, stage=stage)]
    chunks[-1 if stage == layout.pipeline_parallel - 1 else 0] += rank - sum(chunks)
    names = [f"chunk_{index}" for index in range(len(chunks))]
    return derive(
        "buffer elements",
        "elements",
        " + ".join(f"ceil({name}/multiple)*multiple" for name in names),
        multiple=math.lcm(_BUFFER_MULTIPLE, layout.replicas),
        **dict(zip(names, chunks, strict=True)),
    )


def engine_parameters(architecture: Architecture, *, tensor_parallel: int) -> list[Figure]:
    """Elements that a worker of a vLLM engine holds; key-value heads are repeated if there are too few."""
    a = architecture
    kv_heads = max(1, a.num_kv_heads // tensor_parallel)
    layer = layer_parameters(a, tensor_parallel=tensor_parallel, kv_heads=kv_heads)
    rank = derive(
        "worker parameters",
        "elements",
        "layers*layer + vocabularies*vocab/tp*hidden + hidden",
        layers=a.num_layers,
        layer=layer.value,
        vocabularies=1 if a.tied else 2,
        vocab=vllm_vocab_size(a),
        tp=tensor_parallel,
        hidden=a.hidden_size,
    )
    return [layer, rank]
