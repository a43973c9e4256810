"""A reward model run by vLLM's pooling runner."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from rlstack.config.vllm_environment import vllm_environment

CPU_KV_CACHE_GIB = 1.0  # one batch's keys and values


class VllmEngine:
    """Scores of token sequences, each read at its last token."""

    def __init__(
        self,
        folder: Path,
        *,
        max_tokens: int,
        batch_tokens: int,
        tensor_parallel: int,
        gpu_memory_fraction: float,
    ) -> None:
        """Load the sequence classifier in `folder`: in fp32 on CPU, in its own precision on the GPU."""
        cuda = torch.cuda.is_available()
        os.environ.update(vllm_environment(cuda=cuda))
        from vllm import LLM, PoolingParams  # only now: it reads the environment when it is imported

        memory: dict[str, Any] = (
            {"gpu_memory_utilization": gpu_memory_fraction}
            if cuda
            else {"kv_cache_memory_bytes": int(CPU_KV_CACHE_GIB * 2**30)}
        )
        if not cuda:
            torch.set_num_threads(1)
        self._llm: Any = LLM(
            str(folder),
            runner="pooling",
            trust_remote_code=False,
            load_format="safetensors",  # the other format is a pickle
            dtype="auto" if cuda else "float32",
            hf_overrides={"num_labels": 1},
            tensor_parallel_size=tensor_parallel,
            distributed_executor_backend="mp" if tensor_parallel > 1 else "uni",
            enforce_eager=not cuda,
            max_model_len=max_tokens,
            max_num_batched_tokens=max(batch_tokens, max_tokens),
            **memory,
        )
        # Without the activation: a sigmoid would squeeze the differences that rewards are made of.
        self._parameters = PoolingParams(use_activation=False)

    def score(self, sequences: Sequence[Sequence[int]]) -> list[float]:
        """One score per sequence, in their order."""
        if not sequences:  # which vLLM refuses
            return []
        prompts = [{"prompt_token_ids": list(sequence)} for sequence in sequences]
        outputs = self._llm.encode(prompts, self._parameters, pooling_task="classify", use_tqdm=False)
        return [float(output.outputs.data.item()) for output in outputs]
