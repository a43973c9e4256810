"""A vLLM engine as a run's settings want it."""

from __future__ import annotations

import os
from typing import Any

import torch

from rlstack.config.schema import Landing, Precision, RunConfig, TransferMethod
from rlstack.config.vllm_environment import vllm_environment
from rlstack.transfer.plugin import BACKEND, PLAIN_WEIGHTS

_DTYPES: dict[Precision, Any] = {Precision.fp32: "float32", Precision.bf16: "bfloat16"}


def engine_environment(*, cuda: bool, plain_weights: bool) -> dict[str, str]:
    """Environment of a process that holds an engine; to be set before vLLM is imported.

    `plain_weights` lets the linears of a CPU engine do without a packed copy (transfer.landing=direct).
    """
    return vllm_environment(cuda=cuda) | ({} if cuda else {PLAIN_WEIGHTS: str(int(plain_weights))})


def load_llm(config: RunConfig, *, index: int) -> Any:
    """The vllm.LLM of `config.policy.model`; `index` tells the engines of a run apart."""
    cuda = torch.cuda.is_available()
    transfer = config.transfer
    direct = transfer.landing is Landing.direct
    os.environ.update(engine_environment(cuda=cuda, plain_weights=direct))
    from vllm import LLM  # only now: it reads the environment when it is imported

    rollout, folder = config.rollout, config.policy.model
    memory: dict[str, Any] = (
        {"gpu_memory_utilization": rollout.gpu_memory_fraction}
        if cuda
        else {"kv_cache_memory_bytes": int(rollout.kv_cache_gib * 2**30)}
    )
    reshard = transfer.method is TransferMethod.reshard
    if not cuda:
        torch.set_num_threads(1)
    return LLM(
        folder,
        trust_remote_code=False,
        load_format="safetensors",  # the other format is a pickle
        dtype=_DTYPES[config.policy.precision],
        tensor_parallel_size=rollout.tensor_parallel,
        distributed_executor_backend="mp" if rollout.tensor_parallel > 1 else "uni",
        worker_extension_cls="rlstack.transfer.landing.WeightLanding",
        weight_transfer_config={"backend": BACKEND} if reshard else None,
        enforce_eager=not cuda,
        max_num_seqs=rollout.max_num_seqs,
        # A prompt cut in two draws a token for its first part, which it takes back by rewinding its
        # generator: torch's CPU generator cannot do that (vllm/v1/worker/gpu_model_runner.py).
        enable_chunked_prefill=cuda,
        seed=config.run.seed + index,
        generation_config="vllm",  # not the folder's: the run's settings alone decide how to sample
        logprobs_mode="raw_logprobs",  # before temperature and top-p, as the trainer computes them
        **memory,
    )
