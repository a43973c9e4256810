"""Lengths of the sequences that engines compute, and the memory that they take in engines and controller."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil
from pathlib import Path
from typing import Protocol

from rlstack.config.precision import rollout_precision
from rlstack.config.schema import Precision, RunConfig
from rlstack.model.files import CONFIG, read_object

BLOCK_TOKENS = 128  # of vLLM's cache on a CPU
GIB = 2**30
ROLLOUT_TOKEN_BYTES = 14  # in the controller: an int32 id, a float32 logprob and about 4 to 6 bytes of text


class CacheShape(Protocol):
    """The size of a token's keys and values; `rlstack.model.architecture.Architecture` has it."""

    @property
    def num_layers(self) -> int: ...

    @property
    def num_kv_heads(self) -> int: ...

    @property
    def head_dim(self) -> int: ...


def max_steps_ahead(config: RunConfig) -> int:
    """Steps whose rollouts may wait in the controller: what both of its limits allow, and at least one.

    rollout.max_ahead_gib counts every answer at its full length, so that the number depends on settings
    alone: engines are given the same prompts together whatever the answers' lengths turn out to be.
    """
    rollout = config.rollout
    step_bytes = config.batch.prompts_per_step * rollout.n * rollout.max_new_tokens * ROLLOUT_TOKEN_BYTES
    return max(1, min(rollout.max_steps_ahead, int(rollout.max_ahead_gib * GIB // max(1, step_bytes))))


def longest_sequence(config: RunConfig, *, max_prompt_tokens: int | None) -> int:
    """Tokens of the longest prompt and answer, at most the context of `policy.model`.

    max_prompt_tokens: of the longest prompt; None: any that the context takes.
    """
    context = int(read_object(Path(config.policy.model) / CONFIG)["max_position_embeddings"])
    if max_prompt_tokens is None:
        return context
    return min(context, max_prompt_tokens + config.rollout.max_new_tokens)


def cache_problems(config: RunConfig, shape: CacheShape, *, max_prompt_tokens: int) -> Iterator[str]:
    """What is wrong with rollout.kv_cache_gib of engines on a CPU: vLLM needs room for one sequence."""
    rollout = config.rollout
    num_tokens = longest_sequence(config, max_prompt_tokens=max_prompt_tokens)
    itemsize = 4 if rollout_precision(config) is Precision.fp32 else 2
    num_heads = max(1, shape.num_kv_heads // rollout.tensor_parallel)
    bytes_per_token = 2 * shape.num_layers * num_heads * shape.head_dim * itemsize
    needed_gib = ceil(num_tokens / BLOCK_TOKENS) * BLOCK_TOKENS * bytes_per_token / GIB
    if needed_gib > rollout.kv_cache_gib:
        yield (
            f"rollout.kv_cache_gib = {rollout.kv_cache_gib:g}: at least {needed_gib:.2f} is accepted, for "
            f"one sequence of {num_tokens} tokens, the longest prompt and rollout.max_new_tokens; raise "
            "it, or lower rollout.max_new_tokens"
        )
