"""A vLLM engine as a run's settings want it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from rlstack.config import deterministic
from rlstack.config.machine import Machine
from rlstack.config.precision import engine_precision, quantization_of, unquantised_layers
from rlstack.config.schema import Landing, Placement, RunConfig, TransferMethod
from rlstack.config.sequences import longest_sequence
from rlstack.config.validate_precision import engine_machine_problems, refuse
from rlstack.config.vllm_environment import vllm_environment
from rlstack.errors import ConfigError
from rlstack.model.files import CONFIG, check_files, read_object
from rlstack.telemetry.run_dir import PROFILE, folder_of
from rlstack.transfer.plugin import BACKEND, PLAIN_WEIGHTS


def engine_environment(*, cuda: bool, plain_weights: bool) -> dict[str, str]:
    """Environment of a process that holds an engine; to be set before vLLM is imported.

    `plain_weights` lets the linears of a CPU engine do without a packed copy (transfer.landing=direct).
    """
    return vllm_environment(cuda=cuda) | ({} if cuda else {PLAIN_WEIGHTS: str(int(plain_weights))})


def can_sleep(config: RunConfig) -> bool:
    """Whether the engine is loaded so that it can give its memory up and take it again."""
    return torch.cuda.is_available() and config.cluster.placement is Placement.colocated


def load_llm(config: RunConfig, *, index: int, max_prompt_tokens: int | None) -> Any:
    """The vllm.LLM of `config.policy.model`; `index` tells the engines of a run apart.

    max_prompt_tokens: the longest prompt that it will get; None: as long as the model's context takes.

    Raises ConfigError if this machine, or its vLLM, cannot compute in the engines' precision.
    """
    machine = Machine.detect().arithmetic
    refuse(engine_machine_problems(config, machine))
    refuse(deterministic.deterministic_machine_problems(config, machine))
    check_files(Path(config.policy.model), setting="policy.model")
    cuda = torch.cuda.is_available()
    transfer = config.transfer
    direct = transfer.landing is Landing.direct
    os.environ.update(engine_environment(cuda=cuda, plain_weights=direct))
    os.environ.update(deterministic.engine_environment(config, cuda=cuda))
    from vllm import LLM  # only now: it reads the environment when it is imported

    precision = _precision(config)
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
        **precision,
        tensor_parallel_size=rollout.tensor_parallel,
        distributed_executor_backend="mp" if rollout.tensor_parallel > 1 else "uni",
        worker_extension_cls="rlstack.transfer.landing.WeightLanding",
        weight_transfer_config={"backend": BACKEND} if reshard else None,
        enforce_eager=not cuda,
        enable_sleep_mode=can_sleep(config),
        max_num_seqs=rollout.max_num_seqs,
        # vLLM starts only if its cache holds a sequence of this length: the whole context if it is not told.
        max_model_len=longest_sequence(config, max_prompt_tokens=max_prompt_tokens),
        # A prompt cut in two draws a token for its first part, which it takes back by rewinding its
        # generator: torch's CPU generator cannot do that (vllm/v1/worker/gpu_model_runner.py).
        enable_chunked_prefill=cuda,
        seed=config.run.seed + index,
        generation_config="vllm",  # not the folder's: the run's settings alone decide how to sample
        logprobs_mode="raw_logprobs",  # before temperature and top-p, as the trainer computes them
        **memory,
        **profiler_settings(config, index=index),
    )


def profiler_settings(config: RunConfig, *, index: int) -> dict[str, Any]:
    """Keywords of an LLM whose start_profile() is to work: {} for a run that profiles no step."""
    if config.telemetry.profile_steps is None:
        return {}
    return {
        "profiler_config": {
            "profiler": "torch",
            "torch_profiler_dir": str(folder_of(config) / PROFILE / f"engine-{index}"),
            "torch_profiler_with_stack": False,
        }
    }


def _precision(config: RunConfig) -> dict[str, Any]:
    """vLLM's options of the engines' arithmetic.

    Raises ConfigError if this vLLM does not have the quantisation.
    """
    precision = engine_precision(config)
    options: dict[str, Any] = {
        "dtype": precision.dtype,
        "quantization": precision.quantization,
        "hf_overrides": {"head_dtype": precision.head_dtype},
    }
    if precision.quantization is not None:
        _refuse_unknown(config)
        num_layers = int(read_object(Path(config.policy.model) / CONFIG)["num_hidden_layers"])
        layers = unquantised_layers(config, num_layers=num_layers)
        options["quantization_config"] = {"ignore": [f"model.layers.{layer}.*" for layer in layers]}
    return options


def _refuse_unknown(config: RunConfig) -> None:
    """Older versions of vLLM have fewer ways to quantise what was stored in full."""
    import vllm
    from vllm.model_executor.layers.quantization import QUANTIZATION_METHODS

    if quantization_of(config.rollout) not in QUANTIZATION_METHODS:
        raise ConfigError(
            f"rollout.fp8_scaling = {config.rollout.fp8_scaling.value}: vLLM {vllm.__version__} does not "
            f"have {quantization_of(config.rollout)}; take another, or a later vLLM"
        )
