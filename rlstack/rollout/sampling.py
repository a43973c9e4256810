"""What goes into vLLM's sampler and what comes out, without vLLM: pure."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rlstack.data.records import Rollout


def prompt_seed(run_seed: int, *, stream: str, step: int, position: int) -> int:
    """Seed of one prompt's rollouts, in [0, 2^62).

    `stream` keeps training and evaluation apart; `position` is the prompt's place within its step. vLLM seeds
    rollout k of a prompt with seed + k, so seeds of neighbouring prompts must not be neighbours.
    """
    text = f"{run_seed}/{stream}/{step}/{position}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 2


def to_rollout(completion: Any, *, version: int, decode: Callable[[Sequence[int]], str]) -> Rollout:
    """A rollout of vLLM's CompletionOutput that was sampled with `logprobs=0`: the sampled tokens' only.

    `decode` gives the text of tokens, special ones left out; of the end token it is not asked.
    """
    token_ids = completion.token_ids
    logprobs = [at[token].logprob for at, token in zip(completion.logprobs, token_ids, strict=True)]
    finished = completion.finish_reason == "stop"
    return Rollout(
        token_ids=np.array(token_ids, np.int32),
        generator_logprobs=np.array(logprobs, np.float32),
        text=decode(token_ids[:-1] if finished else token_ids),
        finished=finished,
        version=version,
    )
