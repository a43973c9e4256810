"""The layouts that a model allows on a number of GPUs. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from rlstack.model.architecture import Architecture
from rlstack.orchestration.layout_text import EngineLayout, vllm_vocab_size
from rlstack.tuning.parts import Layout

_VIRTUAL_SIZES = (2, 4)  # chunks per stage


def trainer_layouts(
    architecture: Architecture,
    *,
    num_gpus: int,
    gpus_per_node: int,
    micro_batch_tokens: int,
    context_parallel: int = 1,
) -> Iterator[Layout]:
    """Those of all `num_gpus` with each tensor-parallel group in one node; smallest TP and PP first.

    Stages are of equal size and one chunk each.
    """
    heads, kv_heads, ffn = architecture.num_heads, architecture.num_kv_heads, architecture.ffn_size
    if num_gpus % context_parallel:
        return
    groups = num_gpus // context_parallel
    for tensor_parallel in _divisors(groups, at_most=gpus_per_node):
        if heads % tensor_parallel or kv_heads % tensor_parallel or ffn % tensor_parallel:
            continue
        for pipeline_parallel in _divisors(groups // tensor_parallel, at_most=architecture.num_layers):
            if architecture.num_layers % pipeline_parallel == 0:
                yield Layout(
                    tensor_parallel=tensor_parallel,
                    pipeline_parallel=pipeline_parallel,
                    context_parallel=context_parallel,
                    data_parallel=groups // tensor_parallel // pipeline_parallel,
                    micro_batch_tokens=micro_batch_tokens,
                )


def virtual_pipelines(architecture: Architecture, layout: Layout) -> Iterator[Layout]:
    """`layout` with its stages cut into chunks; more than four of them save next to nothing more."""
    layers = architecture.num_layers // layout.pipeline_parallel
    for size in _VIRTUAL_SIZES:
        if layout.pipeline_parallel > 1 and layers % size == 0:
            yield replace(layout, virtual_pipeline=size)


def engine_layouts(
    architecture: Architecture, *, num_gpus: int, gpus_per_node: int
) -> Iterator[EngineLayout]:
    """Those of all `num_gpus` as vLLM lays engines out; smallest TP first."""
    heads, kv_heads = architecture.num_heads, architecture.num_kv_heads
    for size in _divisors(num_gpus, at_most=gpus_per_node):
        shares_heads = kv_heads % size == 0 or size % kv_heads == 0
        if shares_heads and not (
            heads % size or architecture.ffn_size % size or vllm_vocab_size(architecture) % size
        ):
            yield EngineLayout(num_engines=num_gpus // size, tensor_parallel=size)


def splits(num_gpus: int, *, gpus_per_node: int) -> Iterator[tuple[int, int]]:
    """GPUs of the trainer and of the engines; a trainer larger than a node has whole nodes."""
    for trainer in range(1, num_gpus):
        if trainer < gpus_per_node or trainer % gpus_per_node == 0:
            yield trainer, num_gpus - trainer


def _divisors(number: int, *, at_most: int) -> list[int]:
    return [size for size in range(1, min(number, at_most) + 1) if number % size == 0]
