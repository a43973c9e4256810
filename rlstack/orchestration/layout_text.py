"""Layouts as the command line takes them: TP8PP4DP2 of a trainer, 4xTP8 of the engines."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from rlstack.errors import ConfigError
from rlstack.model.architecture import Architecture

VLLM_VOCAB_MULTIPLE = 64  # rows; DEFAULT_VOCAB_PADDING_SIZE of vLLM's vocab_parallel_embedding.py

_AXIS = re.compile(r"(TP|PP|VP|CP|DP)([1-9]\d*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainerLayout:
    """Ranks per tensor-parallel group, pipeline stages, ranks that share sequences, replicas."""

    tensor_parallel: int
    pipeline_parallel: int
    context_parallel: int = 1
    data_parallel: int
    virtual_pipeline: int = 1  # chunks of layers per stage
    pipeline_layers: tuple[int, ...] | None = None  # of each chunk; None: equal numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineLayout:
    """Engines of one layout."""

    num_engines: int
    tensor_parallel: int


def parse_trainer(text: str, architecture: Architecture) -> TrainerLayout:
    """TP, PP, CP and DP with their sizes, and VP, chunks per stage, in any order; what is left out is 1.

    Raises ConfigError if the text is malformed or `architecture` cannot be laid out like that.
    """
    axes = _AXIS.findall(text.upper())
    sizes = {axis: int(size) for axis, size in axes}
    if not axes or len(sizes) < len(axes) or "".join(map("".join, axes)) != text.upper():
        raise ConfigError(f"--from = {text!r}: a layout like TP8PP4 or TP2PP2DP4 is accepted; each axis once")
    layout = TrainerLayout(
        tensor_parallel=sizes.get("TP", 1),
        pipeline_parallel=sizes.get("PP", 1),
        context_parallel=sizes.get("CP", 1),
        data_parallel=sizes.get("DP", 1),
        virtual_pipeline=sizes.get("VP", 1),
    )
    cut = {**_cut_by_tensor_parallel(architecture), "key-value heads": architecture.num_kv_heads}
    _require_divisor(f"--from = {text}", "TP", layout.tensor_parallel, cut)
    if layout.virtual_pipeline > 1 and layout.pipeline_parallel == 1:
        raise ConfigError(f"--from = {text}: VP is accepted with PP2 or more; add a PP or leave VP out")
    axis = "PP" if layout.virtual_pipeline == 1 else "PP x VP = "
    num_chunks = layout.pipeline_parallel * layout.virtual_pipeline
    _require_divisor(f"--from = {text}", axis, num_chunks, {"layers": architecture.num_layers})
    return layout


def parse_engines(text: str, architecture: Architecture) -> EngineLayout:
    """A number of engines and the ranks of each; the number is 1 if left out.

    Raises ConfigError if the text is malformed or vLLM does not lay `architecture` out like that.
    """
    match = re.fullmatch(r"(?:([1-9]\d*)X)?TP([1-9]\d*)", text.upper())
    if match is None:
        raise ConfigError(f"--to = {text!r}: engines like 4xTP8, or TP8 for a single one, are accepted")
    layout = EngineLayout(num_engines=int(match[1] or 1), tensor_parallel=int(match[2]))
    size, num_kv_heads = layout.tensor_parallel, architecture.num_kv_heads
    cut = {
        **_cut_by_tensor_parallel(architecture),
        "padded rows of vocabulary": vllm_vocab_size(architecture),
    }
    _require_divisor(f"--to = {text}", "TP", size, cut)
    if size % num_kv_heads and num_kv_heads % size:
        raise ConfigError(
            f"--to = {text}: TP{size} neither divides the model's {num_kv_heads} key-value heads nor is a "
            f"multiple of them; choose a size that is one or the other"
        )
    return layout


def vllm_vocab_size(architecture: Architecture) -> int:
    """Rows of the embedding over all workers of an engine, padding included."""
    return math.ceil(architecture.vocab_size / VLLM_VOCAB_MULTIPLE) * VLLM_VOCAB_MULTIPLE


def _cut_by_tensor_parallel(architecture: Architecture) -> dict[str, int]:
    return {"attention heads": architecture.num_heads, "feed-forward columns": architecture.ffn_size}


def _require_divisor(given: str, axis: str, size: int, counts: dict[str, int]) -> None:
    for what, count in counts.items():
        if count % size:
            raise ConfigError(
                f"{given}: {axis}{size} does not divide the model's {count} {what}; choose a size that does"
            )
